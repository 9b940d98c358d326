from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage


class StaticFilesStorage(ManifestStaticFilesStorage):
    """Replace each file in one step, and only if its content has changed, while nginx serves it.

    Django (5.2) deletes each style sheet and script and writes it again, even if nothing has
    changed. A browser that asked at that moment got no file, or kept an empty one for a year. A
    file that a full disk had cut short was never repaired.

    Releases share the folder. Each has a manifest of its own: a worker of the old release may start
    again while the files of a new one are collected.
    """

    # The app's scripts import each other by hashed names, too. Django (5.2) has a switch for it,
    # which also searches all other scripts: that doubled the time of collectstatic. Django searches
    # all scripts for source maps. These need no hashes, and the search took a third of the rest.
    patterns = (
        *(pattern for pattern in ManifestStaticFilesStorage.patterns if pattern[0] == "*.css"),
        ("uploads/*.js", ManifestStaticFilesStorage._js_module_import_aggregation_patterns[1]),
    )
    # A pass may resolve only one level of imports: Django's 5 passes are too few for seven levels.
    max_post_process_passes = 10

    def __init__(self, *args, **kwargs):
        self.manifest_name = f"staticfiles.{settings.BASE_DIR.name}.json"
        super().__init__(*args, **kwargs)
        self._deleted = set()

    def delete(self, name):
        """Delete the file later, in save_manifest(), unless it is written again."""
        self._deleted.add(name)

    def get_modified_time(self, name):
        """Let collectstatic compare contents, in _save(): a new release may have older files."""
        return datetime.min.replace(tzinfo=UTC)

    def get_available_name(self, name, max_length=None):
        return name

    def save_manifest(self):
        """Delete the files that were not written again, such as those of an earlier pass."""
        super().save_manifest()
        for name in self._deleted:
            super().delete(name)

    def _save(self, name, content):
        self._deleted.discard(name)
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
