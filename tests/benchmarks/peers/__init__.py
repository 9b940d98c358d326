"""The same upload as others do it: store the file "picture" of a form in the folder STORE."""
