from pathlib import Path

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage


class StaticFilesStorage(ManifestStaticFilesStorage):
    """Replace a file in one step, and only by another, while nginx serves it.

    Django (5.2) deletes each style sheet and writes it anew in its place, even where nothing has
    changed: a browser that came at that moment got none, or kept an empty one for a year. And what
    a full disk had cut short passed for whole ever after.
    """

    def delete(self, name):
        """Leave the file to be replaced."""

    def get_available_name(self, name, max_length=None):
        return name

    def _save(self, name, content):
        path, data = Path(self.path(name)), b"".join(content.chunks())
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._replace(path, data)
        return name

    def _replace(self, path, data):
        new = path.with_name(f"{path.name}.new")
        try:
            new.write_bytes(data)
            new.chmod(self.file_permissions_mode)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
