"""The output of deployconf: nginx, systemd and shells read it."""

import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from unittest.mock import patch

from django.core.management import CommandError, call_command
from django.test import SimpleTestCase, override_settings

from .base import PRODUCTION
from .buckets import describe_buckets
from .environment import deployconf, read_settings
from .servers import manage, requires, write_haproxy_conf, write_nginx_conf
from .stack import make_certificate

TLS = {"GOURMIOUS_TLS_CERTIFICATE": "/c.pem", "GOURMIOUS_TLS_KEY": "/k.pem"}
INSTANCES = ("gourmious-pages@.service", "gourmious-uploads@.service")
SOCKETS = ("gourmious-pages.socket", "gourmious-uploads.socket")
UNITS = (
    "gourmious.service",
    *SOCKETS,
    *INSTANCES,
    "gourmious-prune.service",
    "gourmious-prune.timer",
    "gourmious-metrics.service",
    "gourmious-failed@.service",
)
SERVICES = (*INSTANCES, "gourmious-prune.service", "gourmious-metrics.service")
BACKUP_UNITS = ("gourmious-backup.service", "gourmious-backup.timer")


def judge(*command):
    """Return the status of a program and what it complains of."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stderr


class DeployconfTestCase(SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.folder = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")))
        self.environment = {**PRODUCTION, "GOURMIOUS_DATA_DIR": f"{gettempdir()}/data"}

    def deployconf(self, *arguments, **environment):
        return deployconf(*arguments, **{**self.environment, **environment})


@requires("nginx", "openssl")
class InstalledNginxTests(DeployconfTestCase):
    """The nginx of this machine checks the site. deployconf asks it for its version."""

    def assert_taken(self, *arguments, **environment):
        main = self.deployconf("nginx-main", **environment)
        site = self.deployconf("nginx", *arguments, **environment)
        config = write_nginx_conf(self.folder, main, site)
        status, complaints = judge("nginx", "-t", "-e", "stderr", "-c", config)
        self.assertEqual(status, 0, complaints)
        self.assertNotIn("warn", complaints)

    def test_nginx_takes_the_plain_site(self):
        balancers = {"GOURMIOUS_BALANCERS": "10.0.0.0/8,2001:db8::1"}
        self.assert_taken("--listen=127.0.0.1:8080")
        self.assert_taken("--listen=127.0.0.1:8080", **balancers)

    def test_nginx_takes_several_sites(self):
        sites = [
            self.deployconf("nginx", "--listen=127.0.0.1:8080", GOURMIOUS_SITE=name)
            for name in ("gourmious", "my-site", "site-3")
        ]
        config = write_nginx_conf(self.folder, self.deployconf("nginx-main"), "".join(sites))
        status, complaints = judge("nginx", "-t", "-e", "stderr", "-c", config)

        self.assertEqual(status, 0, complaints)

    def test_nginx_takes_the_lowest_rates(self):
        rates = {"GOURMIOUS_UPLOADS_PER_MINUTE": "1", "GOURMIOUS_POSTS_PER_MINUTE": "1"}
        self.assert_taken("--listen=127.0.0.1:8080", **rates)

    def test_nginx_takes_the_site_with_tls(self):
        tls = make_certificate(self.folder)
        for hosts in ("gourmious.example", ".gourmious.example,192.0.2.1,[2001:db8::1]", "*"):
            with self.subTest(hosts):
                environment = {**tls, "GOURMIOUS_ALLOWED_HOSTS": hosts}
                self.assert_taken("--listen=127.0.0.1:8443", **environment)


@requires("haproxy", "openssl")
class InstalledHAProxyTests(DeployconfTestCase):
    """The HAProxy of this machine checks the configuration."""

    def assert_taken(self, *arguments, **environment):
        balancers = {"GOURMIOUS_BALANCERS": "10.0.0.1", "GOURMIOUS_MAX_UPLOADS": "500"}
        config = self.deployconf("balancer", *arguments, **balancers, **environment)
        path = write_haproxy_conf(self.folder, config)
        self.assertEqual(judge("haproxy", "-c", "-f", path), (0, ""))
        return config

    def test_haproxy_takes_plain_http(self):
        self.assert_taken("--listen=127.0.0.1:8080", "10.0.0.2")

    def test_haproxy_takes_hosts_of_every_kind(self):
        self.assert_taken("--listen=127.0.0.1:8080", "10.0.0.2:8080", "[2001:db8::1]", "localhost")

    def test_haproxy_takes_a_certificate(self):
        certificate = self.folder / "both.pem"
        files = make_certificate(self.folder).values()
        certificate.write_text("".join(Path(file).read_text() for file in files))
        for names in ("gourmious.example", ".gourmious.example,192.0.2.1,[2001:db8::1]", "*"):
            with self.subTest(names):
                config = self.assert_taken(
                    f"--certificate={certificate}", "10.0.0.2", GOURMIOUS_ALLOWED_HOSTS=names
                )
                self.assertIn("\n    bind :443 ssl ", config)


class BalancerTests(DeployconfTestCase):
    def assert_refused(self, sentence, *arguments, **values):
        values = {"DEBUG": False, "BALANCERS": ["10.0.0.1"], "TLS_CERTIFICATE": "", **values}
        with override_settings(**values), self.assertRaisesRegex(CommandError, sentence):
            call_command("deployconf", "balancer", *arguments, stdout=StringIO())

    def test_what_is_no_web_host_is_refused(self):
        for host in (
            "http://10.0.0.2",
            "10.0.0.2:http",
            "10.0.0.2:65536",
            "a b",
            "",
            "2001:db8::1",
        ):
            self.assert_refused("is not a web host", "--listen=:80", host)

    def test_a_host_that_is_given_twice_is_refused(self):
        self.assert_refused("given twice", "--listen=:80", "10.0.0.2", "10.0.0.2:80")

    def test_plain_http_must_be_asked_for(self):
        self.assert_refused("--certificate, or --listen", "10.0.0.2")

    def test_hosts_that_do_not_know_the_balancer_are_refused(self):
        self.assert_refused("GOURMIOUS_BALANCERS", "--listen=:80", "10.0.0.2", BALANCERS=[])

    def test_hosts_with_a_certificate_of_their_own_are_refused(self):
        self.assert_refused(
            "GOURMIOUS_TLS_CERTIFICATE", "--listen=:80", "10.0.0.2", TLS_CERTIFICATE="/c.pem"
        )


class NginxTests(DeployconfTestCase):
    def test_plain_it_listens_on_port_80(self):
        [others, ours] = self.read_servers()

        self.assertEqual(others["listen"], ["80 default_server", "[::]:80 default_server"])
        self.assertEqual(ours["listen"], ["80", "[::]:80"])
        self.assertEqual(ours["server_name"], ["gourmious.example www.gourmious.example"])

    def read_servers(self, *arguments, **environment):
        """Return the directives of each server of the site: the values by the names."""
        _, *servers = self.deployconf("nginx", *arguments, **environment).split("\nserver {\n")
        return [
            {
                name: re.findall(rf"(?m)^ *{name} (.*);$", server)
                for name in ("listen", "http2", "server_name", "return", "ssl_reject_handshake")
            }
            for server in servers
        ]

    def test_with_tls_port_80_leads_each_name_to_https(self):
        first, second, *_, ours = self.read_servers(**TLS)

        for redirect, name in ((first, "gourmious.example"), (second, "www.gourmious.example")):
            self.assertEqual(redirect["listen"], ["80", "[::]:80"])
            self.assertEqual(redirect["server_name"], [name])
            self.assertIn(f"301 https://{name}$request_uri", redirect["return"])
        self.assertRegex(ours["listen"][0], "^443 ssl")

    def test_http_2_is_turned_on_as_the_version_of_nginx_wants_it(self):
        for version, listen, directive in (
            ("1.22.1", ["443 ssl http2", "[::]:443 ssl http2"], []),
            ("1.25.0", ["443 ssl http2", "[::]:443 ssl http2"], []),
            ("1.25.1", ["443 ssl", "[::]:443 ssl"], ["on"]),
            ("1.26.3", ["443 ssl", "[::]:443 ssl"], ["on"]),
        ):
            [*_, ours] = self.read_servers(f"--nginx-version={version}", **TLS)
            self.assertEqual((ours["listen"], ours["http2"]), (listen, directive))

    def test_without_tls_there_is_no_http_2(self):
        self.assertNotIn("http2", self.deployconf("nginx", "--nginx-version=1.26.3"))

    @requires("nginx")
    def test_the_version_is_that_of_the_installed_nginx(self):
        status, text = judge("nginx", "-v")
        version = text.split("/")[1].split()[0]

        self.assertEqual(status, 0)
        printed = self.deployconf("nginx", f"--nginx-version={version}", **TLS)
        self.assertEqual(self.deployconf("nginx", **TLS), printed)

    def test_without_nginx_the_site_is_for_a_new_one(self):
        output = StringIO()
        with (
            override_settings(DEBUG=False, TLS_CERTIFICATE="/c.pem", TLS_KEY="/k.pem"),
            patch("shutil.which", return_value=None),
        ):
            call_command("deployconf", "nginx", stdout=output)
        self.assertIn("http2 on;", output.getvalue())

    def test_a_wildcard_leads_to_the_host_of_the_request(self):
        for hosts, name in ((".gourmious.example", ".gourmious.example"), ("*", "_")):
            redirect, *_ = self.read_servers(**TLS, GOURMIOUS_ALLOWED_HOSTS=hosts)
            self.assertEqual(redirect["server_name"], [name])
            self.assertIn("301 https://$host$request_uri", redirect["return"])

    def test_a_default_server_refuses_other_hosts(self):
        for environment in ({}, TLS):
            [*_, default, _] = self.read_servers(**environment)
            self.assertIn("444", default["return"])
            self.assertIn("default_server", default["listen"][-1])

    def test_one_of_several_sites_has_the_default_server(self):
        for environment, count in (({}, 2), (TLS, 4)):
            site = self.deployconf("nginx", **environment)
            self.assertEqual(site.count("default_server"), count)
            site = self.deployconf("nginx", GOURMIOUS_SITE="my-site", **environment)
            self.assertNotIn("default_server", site)

    def test_certbot_may_answer_under_names_that_have_no_site_yet(self):
        for environment in ({}, TLS):
            site = self.deployconf("nginx", **environment)
            default = site[site.index('server_name "";') :]
            self.assertIn("location /.well-known/acme-challenge/ {", default)

    def test_global_names_in_nginx_begin_with_the_name_of_the_site(self):
        site = self.deployconf("nginx", GOURMIOUS_SITE="my-site", **TLS)

        self.assertIn("my_site_uploads", site)
        self.assertNotIn("gourmious_", site)
        self.assertIn("unix:/run/my-site/pages/socket", site)
        self.assertIn('"my-site:1:${remote_addr}_${my_site_progress_id}"', site)

    def test_every_host_may_be_allowed(self):
        self.assertNotIn("444", self.deployconf("nginx", **TLS, GOURMIOUS_ALLOWED_HOSTS="*"))

    def test_a_handshake_for_no_name_is_refused_unless_a_host_is_an_ip_address(self):
        for hosts, refused in (("gourmious.example", ["on"]), ("192.0.2.1", []), ("[::1]", [])):
            [*_, default, _] = self.read_servers(**TLS, GOURMIOUS_ALLOWED_HOSTS=hosts)
            self.assertEqual(default["ssl_reject_handshake"], refused)

    def test_connections_are_enough_for_the_uploads(self):
        main = self.deployconf("nginx-main", GOURMIOUS_MAX_UPLOADS="3000")

        self.assertIn("worker_connections 14192;", main)
        self.assertIn("worker_rlimit_nofile 28384;", main)

    def test_the_limits_are_those_of_the_settings(self):
        limits = {"GOURMIOUS_MAX_UPLOADS": "77", "GOURMIOUS_MAX_UPLOADS_PER_ADDRESS": "7"}
        site = self.deployconf("nginx", **limits)

        self.assertIn("limit_conn gourmious_uploads 77;", site)
        self.assertIn("limit_conn gourmious_uploads_of_address 7;", site)
        self.assertIn(f"client_max_body_size {320 * 2**20};", site)

    def test_the_rates_are_those_of_the_settings(self):
        rates = {"GOURMIOUS_UPLOADS_PER_MINUTE": "90", "GOURMIOUS_POSTS_PER_MINUTE": "7"}
        site = self.deployconf("nginx", **rates)

        for kind in ("upload", "cancel"):
            self.assertIn(f"zone=gourmious_{kind}_rate:10m rate=90r/m;", site)
            self.assertIn(f"limit_req zone=gourmious_{kind}_rate burst=30 nodelay;", site)
        for form in ("new_dish", "login", "report"):
            self.assertIn(f"zone=gourmious_{form}_rate:10m rate=7r/m;", site)
            self.assertIn(f"limit_req zone=gourmious_{form}_rate burst=7 nodelay;", site)

    def test_uploads_and_all_else_go_to_their_own_sockets(self):
        site = self.deployconf("nginx", GOURMIOUS_RUN_DIR="/run/dishes")

        for service in ("pages", "uploads"):
            self.assertIn(
                f'upstream gourmious_{service} {{\n    server "unix:/run/dishes/{service}/socket";',
                site,
            )
        self.assertEqual(site.count("http://gourmious_uploads"), 1)

    def test_its_own_refusals_are_those_of_the_table(self):
        site = self.deployconf("nginx")

        busy = "Too many photos are being uploaded at the moment; please try again in a minute."
        unreachable = "The server cannot be reached at the moment; please try again in a minute."
        self.assertIn(f'"upload 429" "{busy}";', site)
        self.assertIn(f'"default" "{unreachable}";', site)

    def test_another_process_prints_the_same(self):
        printed = manage("deployconf", "nginx", **self.environment)

        self.assertEqual(printed, self.deployconf("nginx"))

    def test_a_path_that_would_be_misread_is_refused(self):
        path = Path("/srv/$uri")
        for kind in ("nginx", "systemd"):
            with (
                override_settings(DEBUG=False, STATIC_ROOT=path, DATA_DIR=path),
                self.assertRaisesRegex(CommandError, "/srv/[$]uri"),
            ):
                call_command("deployconf", kind)


class SystemdTests(DeployconfTestCase):
    def make_deployment(self, home):
        """Make what the units name: a deployment with each name that systemd-analyze gives it."""
        for name in ("i", "test_instance"):  # in systemd 252 and 257
            python = home / "deployments" / name / "release" / ".venv" / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)
        (home / "current").symlink_to("deployments/i")

    @requires("systemd-analyze")
    def test_systemd_takes_the_units(self):
        figures = {"GOURMIOUS_METRICS_PORT": "9717", "GOURMIOUS_ALERT_MAIL": "ops@a.example"}
        for site, name, more in (("gourmious", "data", {}), ("my-site", "Übung, 100%", figures)):
            folders = {"DATA": f"{gettempdir()}/{name}", "BACKUP": f"/mnt/{name}"}
            environment = {f"GOURMIOUS_{kind}_DIR": path for kind, path in folders.items()}
            environment |= {"GOURMIOUS_SITE": site, **more}
            folder, home = self.folder / site, self.folder / f"home of {name}"
            folder.mkdir()
            self.make_deployment(home)
            units = [folder / f"{site}{unit[9:]}" for unit in (*UNITS, *BACKUP_UNITS)]
            for unit in units:
                command = ("systemd", "--home", str(home), "--unit", unit.name)
                text = self.deployconf(*command, **environment)
                # This machine has no site.
                unit.write_text(text.replace(f"/usr/local/sbin/{site}", "/bin/true"))

            status, complaints = judge("systemd-analyze", "verify", *units)

            self.assertEqual(status, 0, complaints)
            self.assertNotIn(site, complaints)

    @requires("systemd-analyze")
    def test_systemd_finds_the_services_safe(self):
        for name in SERVICES:
            unit = self.folder / name.replace("@", "")
            unit.write_text(self.deployconf("systemd", "--unit", name))
            command = ("systemd-analyze", "security", "--offline=true", "--threshold=11", unit)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def test_each_service_that_fails_is_told_of(self):
        self.environment["GOURMIOUS_BACKUP_DIR"] = "/mnt/backup"
        for name in ("gourmious.service", *SERVICES, "gourmious-backup.service"):
            unit = self.deployconf("systemd", "--unit", name)
            self.assertIn("\nOnFailure=gourmious-failed@%N.service\n", unit)

    def test_a_failure_is_mailed_if_there_is_an_address(self):
        unit = ("systemd", "--unit", "gourmious-failed@.service")

        self.assertIn("\nSyslogLevel=alert\n", self.deployconf(*unit))
        self.assertNotIn("sendmail", self.deployconf(*unit))
        mailed = self.deployconf(*unit, GOURMIOUS_ALERT_MAIL="ops@a.example")
        self.assertIn("\nStandardInputText=To: ops@a.example\n", mailed)
        self.assertIn("sendmail", mailed)

    def test_each_timer_makes_up_for_what_it_missed(self):
        for name in UNITS:
            if name.endswith(".timer"):
                unit = self.deployconf("systemd", "--unit", name)
                self.assertIn("\nPersistent=true\n", unit)

    def test_only_memcached_can_be_reached_unless_only_dns_knows_its_address(self):
        for memcached, peers, allowed in (
            ("127.0.0.1:11211", "", ["localhost"]),
            ("localhost:11211", "", ["localhost"]),
            ("10.0.0.7:11211", "10.0.0.8:11211", ["localhost 10.0.0.7 10.0.0.8"]),
            ("memcached.example:11211", "", []),
            ("127.0.0.1:11211", "memcached.example:11211", []),
        ):
            servers = {"GOURMIOUS_MEMCACHED": memcached, "GOURMIOUS_MEMCACHED_PEERS": peers}
            for unit in self.read_services(**servers):
                self.assertEqual(re.findall("(?m)^IPAddressAllow=(.*)$", unit), allowed)
                self.assertEqual("\nIPAddressDeny=any\n" in unit, bool(allowed))

    def test_a_database_and_a_store_on_other_machines_can_be_reached(self):
        store = describe_buckets("http://10.0.0.9:8333", "gourmious")
        for url, allowed in (
            ("postgresql://10.0.0.7/menu", ["localhost 10.0.0.7 10.0.0.9"]),
            ("postgresql://10.0.0.7,10.0.0.8:5433/menu", ["localhost 10.0.0.7 10.0.0.8 10.0.0.9"]),
            ("postgresql:///menu?host=/run/postgresql", ["localhost 10.0.0.9"]),
            ("postgresql://db.example/menu", []),
        ):
            servers = {"GOURMIOUS_MEMCACHED": "localhost:11211", "GOURMIOUS_DATABASE_URL": url}
            environment = {**self.environment, **servers, **store}
            unit = manage("deployconf", "systemd", "--unit", INSTANCES[1], **environment)
            self.assertEqual(re.findall("(?m)^IPAddressAllow=(.*)$", unit), allowed, url)

    def test_only_the_figures_are_served_on_a_port(self):
        for name in UNITS:
            unit = self.deployconf("systemd", "--unit", name, GOURMIOUS_METRICS_PORT="9717")
            ports = ["tcp:9717"] if name == "gourmious-metrics.service" else []
            self.assertEqual(re.findall("(?m)^SocketBindAllow=(.*)$", unit), ports)

    def test_memory_and_threads_are_enough_for_all_uploads(self):
        limits = {"GOURMIOUS_MAX_UPLOADS": "3000", "GOURMIOUS_WORKERS": "2"}
        pages, uploads = self.read_services(**limits)

        for unit, memory, tasks in ((pages, 2 * 2**10, 2 * 64), (uploads, 4000, 6_000)):
            self.assertGreater(int(re.search(r"\nMemoryMax=(\d+)M\n", unit)[1]), memory)
            self.assertGreater(int(re.search(r"\nTasksMax=(\d+)\n", unit)[1]), tasks)

    def test_all_are_printed_with_their_names(self):
        each = [f"# {name}\n{self.deployconf('systemd', '--unit', name)}" for name in UNITS]

        self.assertEqual(self.deployconf("systemd"), "".join(each))

    def test_those_of_the_backup_are_printed_where_its_folder_is_set(self):
        self.assertNotIn("backup", self.deployconf("systemd"))

        units = self.deployconf("systemd", GOURMIOUS_BACKUP_DIR="/mnt/backup")

        for name in BACKUP_UNITS:
            self.assertIn(f"# {name}\n", units)
        with (
            override_settings(DEBUG=False, BACKUP_DIR=None),
            self.assertRaisesRegex(CommandError, "There is no unit gourmious-backup.service"),
        ):
            call_command("deployconf", "systemd", "--unit", BACKUP_UNITS[0])

    def test_no_service_starts_before_its_disks_are_mounted(self):
        self.environment["GOURMIOUS_BACKUP_DIR"] = "/mnt/backup"
        data = self.environment["GOURMIOUS_DATA_DIR"]
        for name in (*INSTANCES, "gourmious-prune.service", BACKUP_UNITS[0]):
            unit = self.deployconf("systemd", "--unit", name)

            self.assertRegex(unit, rf'(?m)^RequiresMountsFor="{data}"')
        self.assertRegex(unit, r'(?m)^RequiresMountsFor=.* "/mnt/backup"$')
        self.assertRegex(unit, r'(?m)^ReadWritePaths="/mnt/backup"$')

    def test_each_instance_runs_a_deployment_of_its_own(self):
        for service, unit in zip(("pages", "uploads"), self.read_services(), strict=True):
            folder = "/srv/gourmious/deployments/%i"

            self.assertIn(f"\nWorkingDirectory={folder}/release\n", unit)
            self.assertIn(f"\nEnvironmentFile={folder}/gourmious.env\n", unit)
            command = f'"{folder}/release/.venv/bin/python" -m gourmious.serve {service}'
            self.assertIn(f"\nExecStart={command}\n", unit)
            self.assertIn(f'\nRuntimeDirectory="gourmious/{service}-%i"\n', unit)

    def read_services(self, **environment):
        """Return the units of the pages and of the uploads."""
        return [self.deployconf("systemd", "--unit", unit, **environment) for unit in INSTANCES]

    def test_all_instances_of_a_service_share_its_socket(self):
        for service, unit in zip(("pages", "uploads"), self.read_services(), strict=True):
            socket = self.deployconf("systemd", "--unit", f"gourmious-{service}.socket")

            self.assertIn(f"\nSockets=gourmious-{service}.socket\n", unit)
            self.assertIn(f"\nListenStream=/run/gourmious/{service}/socket\n", socket)

    def test_the_figures_of_the_uploads_outlive_an_instance(self):
        pages, uploads = self.read_services()

        self.assertIn('\nRuntimeDirectory="gourmious/metrics"\n', uploads)
        self.assertIn("\nRuntimeDirectoryPreserve=yes\n", uploads)
        self.assertNotIn("Preserve", pages)

    def test_a_broken_virtual_environment_is_told_in_a_sentence(self):
        [unit, _] = self.read_services()
        script = re.search(r"(?m)^ExecStartPre=/bin/sh -c '(.*)' \"", unit)[1].replace("$$", "$")

        for python, status in ((sys.executable, 0), (self.folder / "python", 1)):
            command = ["sh", "-c", script, python]
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, status)
            self.assertEqual(done.stdout.count(f"{self.folder}/python: gourmious upgrade"), status)

    def test_the_units_of_another_site_have_its_name_everywhere(self):
        names = {"GOURMIOUS_SITE": "my-site", "GOURMIOUS_DATA_DIR": "/tmp/data"}
        units = self.deployconf("systemd", **names)

        ours = {"gourmious.env", "gourmious.exporter", "gourmious.serve"}
        self.assertEqual(set(re.findall(r"gourmious[\w.@-]*", units)), ours)
        self.assertIn("\nUser=my-site\nGroup=my-site\n", units)

    def test_only_the_uploads_have_less_than_the_usual_share_of_the_cores(self):
        pages, uploads = self.read_services()

        self.assertNotIn("CPUWeight", pages)
        self.assertRegex(uploads, r"(?m)^CPUWeight=50$")

    def test_a_folder_for_the_sockets_that_systemd_does_not_make_is_refused(self):
        with (
            override_settings(DEBUG=False, RUN_DIR=Path("/srv/run")),
            self.assertRaisesRegex(CommandError, "GOURMIOUS_RUN_DIR"),
        ):
            call_command("deployconf", "systemd")


class FilesTests(DeployconfTestCase):
    def files(self, **environment):
        return json.loads(self.deployconf("files", **environment))

    def test_all_files_are_printed_by_their_paths(self):
        files = self.files()

        self.assertEqual(files.pop("etc/nginx/nginx.conf"), self.deployconf("nginx-main"))
        self.assertEqual(files.pop("etc/nginx/sites-enabled/gourmious"), self.deployconf("nginx"))
        units = {f"etc/systemd/system/{name}" for name in UNITS}
        self.assertEqual(files.keys(), units)

    def test_one_of_several_sites_has_the_main_file_of_nginx(self):
        files = self.files(GOURMIOUS_SITE="my-site")

        self.assertNotIn("etc/nginx/nginx.conf", files)
        self.assertIn("etc/nginx/sites-enabled/my-site", files)


class EnvTests(DeployconfTestCase):
    def read(self, text):
        """Return the variables of an environment file, as a shell reads it."""
        file = self.folder / "gourmious.env"
        file.write_text(text)
        command = ["env", "-i", "sh", "-ac", ". ./gourmious.env && exec env -0"]
        output = subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.PIPE).stdout
        variables = dict(line.split("=", 1) for line in output.decode().split("\0") if line)
        return {name: variables[name] for name in variables if name.startswith("GOURMIOUS_")}

    def test_it_can_be_used_as_it_is(self):
        variables = self.read(self.deployconf("env"))

        self.assertEqual(variables["GOURMIOUS_SITE"], "gourmious")
        hosts = ["gourmious.example", "www.gourmious.example"]
        self.assertEqual(read_settings(**variables)["ALLOWED_HOSTS"], hosts)

    def test_of_a_server_it_tells_the_settings_that_are_in_force(self):
        environment = {
            **self.environment,
            "GOURMIOUS_SITE": "my-site",
            "GOURMIOUS_SECRET_KEY": "it's a $secret (of) `production` #1",
            "GOURMIOUS_DATA_DIR": f"{gettempdir()}/Übung eins, 100%",
            "GOURMIOUS_ALLOWED_HOSTS": "a.example,b.example",
            "GOURMIOUS_MAX_UPLOADS": "77",
            "GOURMIOUS_BALANCERS": "10.0.0.0/8,2001:db8::1",
            "GOURMIOUS_UPLOADS_PER_MINUTE": "90",
            "GOURMIOUS_POSTS_PER_MINUTE": "7",
            "GOURMIOUS_BACKUP_DIR": "/mnt/my backup",
            "GOURMIOUS_METRICS_PORT": "9718",
            "GOURMIOUS_ALERT_MAIL": "ops@a.example",
            **TLS,
        }

        printed = self.read(self.deployconf("env", **environment))

        self.assertEqual(printed, {**printed, **environment})

    def test_without_settings_of_production_nothing_is_printed(self):
        for kind in ("files", "nginx", "nginx-main", "systemd"):
            with (
                override_settings(DEBUG=True),
                self.assertRaisesRegex(CommandError, "GOURMIOUS_SECRET_KEY"),
            ):
                call_command("deployconf", kind)
