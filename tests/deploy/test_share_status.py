"""./deploy.sh database --share-status and --unshare-status; what users see then is in tests/database."""

from __future__ import annotations

from tests.deploy.developer import EVERY_POSTGRES, Developer
from tests.deploy.test_remove import dump, remove


@EVERY_POSTGRES
def test_the_status_is_shared_and_unshared_again(developer: Developer) -> None:
    developer.install()
    before = dump(developer)
    assert "Signed-in users see" in developer.deploy("database", "--share-status").stderr
    shared = dump(developer)
    assert "CREATE VIEW public.ittybit_files" in shared
    developer.deploy("database", "--share-status")
    assert dump(developer) == shared
    developer.deploy("database", "--unshare-status")
    assert dump(developer) == before
    developer.deploy("database", "--unshare-status")


def test_remove_drops_the_shared_view_without_listing_it_as_anothers(developer: Developer) -> None:
    before = dump(developer)
    developer.install()
    developer.deploy("database", "--share-status")
    assert "ittybit_files" not in remove(developer, "--database-only")
    assert dump(developer) == before


def test_the_status_is_shared_only_by_its_own_option_and_after_the_installation(developer: Developer) -> None:
    assert "not installed" in developer.refused("database", "--share-status")
    developer.deploy("database")
    assert "ittybit_files" not in dump(developer)
    assert "--share-status takes no other option" in developer.refused("database", "--share-status", "--adopt", "copy")


def test_a_dry_run_shares_nothing(developer: Developer) -> None:
    developer.install()
    before = dump(developer)
    assert "deploy/share_status.sql" in developer.deploy("--dry-run", "database", "--share-status").stdout
    assert dump(developer) == before
