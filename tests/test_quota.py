import time
from unittest.mock import patch

from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.test import SimpleTestCase, override_settings

from uploads import quota as quota_module
from uploads.quota import DAY, Quota, get_network, quota

from .base import PRODUCTION, FoldersMixin, UploadTestCase, upload_file
from .cases import MemcachedMixin
from .environment import read_settings
from .photos import photo
from .servers import free_port, requires

HOME, CAFE = "192.0.2.7/32", "2001:db8:1::/48"


class NetworkTests(SimpleTestCase):
    def test_an_address_belongs_to_a_network(self):
        self.assertEqual(get_network("192.0.2.77"), "192.0.2.0/24")
        self.assertEqual(get_network("2001:db8:1:2::77"), "2001:db8:1::/48")
        self.assertEqual(get_network("::ffff:192.0.2.77"), "192.0.2.0/24")
        self.assertIsNone(get_network(""))


@override_settings(MAX_BYTES_PER_DAY=1000)
class QuotaTests(FoldersMixin, SimpleTestCase):
    def test_a_network_may_send_as_much_as_the_quota(self):
        quota = Quota()
        quota.add(HOME, 999)
        self.assertFalse(quota.is_used_up(HOME))

        quota.add(HOME, 1)

        self.assertTrue(quota.is_used_up(HOME))
        self.assertFalse(quota.is_used_up(CAFE))

    def test_processes_count_together(self):
        processes = [Quota() for _ in range(3)]
        for process in processes:
            process.add(HOME, 400)
            process.flush(at_once=True)

        self.assertEqual([process.is_used_up(HOME) for process in processes], [False, False, True])
        processes[0].add(HOME, 1)
        processes[0].flush(at_once=True)
        self.assertTrue(processes[0].is_used_up(HOME))

    def test_the_cache_is_told_only_every_few_seconds(self):
        quota = Quota()
        with patch.object(LocMemCache, "incr", autospec=True, side_effect=LocMemCache.incr) as incr:
            for _ in range(100):
                quota.add(HOME, 1)
                quota.flush()
        self.assertEqual(incr.call_count, 1)

    def test_the_next_day_begins_with_nothing(self):
        quota = Quota()
        quota.add(HOME, 2000)
        quota.flush(at_once=True)
        with patch("time.time", return_value=time.time() + DAY):
            quota.add(HOME, 1)
            quota.flush(at_once=True)
            self.assertFalse(quota.is_used_up(HOME))

    def test_a_process_remembers_a_limited_number_of_networks(self):
        quota = Quota()
        with patch.object(quota_module, "MAX_NETWORKS", 3):
            for number in range(9):
                quota.add(f"192.0.2.{number}/32", 2000)
                quota.flush(at_once=True)
        self.assertEqual(len(quota.totals), 3)
        self.assertTrue(quota.is_used_up("192.0.2.8/32"))

    def test_without_a_cache_each_process_counts_alone(self):
        environment = {**PRODUCTION, "GOURMIOUS_MEMCACHED": f"127.0.0.1:{free_port()}"}
        quota = Quota()
        with override_settings(CACHES=read_settings(**environment)["CACHES"]):
            for network in (HOME, CAFE):
                quota.add(network, 2000)
            quota.flush(at_once=True)
            cache.close()
        self.assertTrue(quota.is_used_up(HOME) and quota.is_used_up(CAFE))


@requires("memcached")
class MemcachedQuotaTests(MemcachedMixin, QuotaTests):
    """The same with memcached."""

    def test_the_cache_is_told_only_every_few_seconds(self):
        quota = Quota()
        for _ in range(2):
            quota.add(CAFE, 7)
            quota.flush()
        self.assertRegex(self.memcached.ask("stats"), "STAT total_items 1\r")

    def test_a_memcached_that_was_restarted_counts_from_zero(self):
        quota = Quota()
        quota.add(HOME, 2000)
        quota.flush(at_once=True)
        self.memcached.ask("flush_all")

        quota.add(HOME, 1)
        quota.flush(at_once=True)

        self.assertFalse(quota.is_used_up(HOME))


@override_settings(MAX_BYTES_PER_DAY=100_000)
class UploadQuotaTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        quota.totals.clear()
        quota.pending.clear()
        self.addCleanup(quota.totals.clear)
        self.addCleanup(quota.pending.clear)

    def test_an_upload_is_refused_when_its_network_has_used_up_its_quota(self):
        quota.add("127.0.0.1/32", 100_000)

        response = self.post(upload_file(photo()))

        self.assert_refused(response, "over_quota", 403)
        self.assertContains(response, "Your network has sent 97.7\xa0KB today", status_code=403)

    def test_an_upload_is_refused_in_the_middle_too(self):
        response = self.post(upload_file(photo(8, 8).ljust(500_000, b"\0")))

        self.assert_refused(response, "over_quota", 403)

    def test_other_networks_may_still_upload(self):
        quota.add("127.0.0.2/32", 100_000)

        self.assertEqual(self.post(upload_file(photo(8, 8))).status_code, 200)

    @override_settings(MIN_FREE_SPACE=2**60)
    def test_an_upload_is_refused_when_the_disk_has_less_room_than_is_kept_free(self):
        response = self.post(upload_file(photo(8, 8)))

        self.assert_refused(response, "storage_full", 507)
