"""What the gateway says of the stages: /api/v1/stages, /readyz, /metrics, and what is made of it in deploy/."""

import glob
import json
import os
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request

from harness import ROOT, Process, Stack, check, equal, matches, wait_for
from runner import shared, test

ACCOUNTS = 6
PROMETHEUS = os.path.join(ROOT, "deploy", "prometheus")
DASHBOARDS = os.path.join(ROOT, "deploy", "grafana", "*.json")


def whole():
    s = Stack(sim={"accounts": ACCOUNTS})
    s.start_all(fetcher=3)
    s.gateway = s.start_gateway()
    s.add_accounts(range(ACCOUNTS))
    s.sim.fault(account=2, do="status", status=401)
    s.run(code=1)
    return s


def get(s, path):
    """Status and text."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{s.gateway.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def series(text):
    """{name and labels: value} of the samples of /metrics."""
    return {m[1]: float(m[2]) for m in re.finditer(r"(?m)^([a-z_]+(?:\{.*\})?) (\S+)$", text)}


def stages(s):
    code, body = get(s, "/api/v1/stages")
    equal(code, 200, "status of /api/v1/stages")
    answer = json.loads(body)
    return answer, {k["stage"]: k for k in answer["stages"]}


def promtool(*args, text=None):
    done = subprocess.run(["promtool", *args], input=text, capture_output=True, text=True, check=False, timeout=60)
    equal((done.returncode, done.stderr.strip()), (0, ""), f"promtool {' '.join(args)}: {done.stdout}")


@test("metrics: each process and each account, as promtool wants them, and equal to the run's record")
def _():
    s = shared(whole)
    requests, inserted = s.sql("SELECT sum(requests)::bigint, sum(rows_inserted)::bigint FROM fetch_runs WHERE jobs > 0")[0]

    def scraped():
        code, text = get(s, "/metrics")
        equal(code, 200, "status of /metrics")
        got = series(text)
        rows = sum(v for k, v in got.items() if k.startswith("usage_fetcher_rows_total{") and 'change="inserted"' in k)
        asked = sum(v for k, v in got.items() if k.startswith("usage_fetcher_requests_total{"))
        return (asked, rows) == (requests, inserted) and (text, got)
    text, got = wait_for(f"the scrape that has the run's {requests} requests and {inserted} rows", scraped, 10)
    promtool("check", "metrics", text=text)
    equal(len({k for k in got if k.startswith("usage_fetcher_jobs_held{")}), 3, "fetchers that are told of")
    equal([got[f'usage_fetcher_stage_processes{{stage="{k}"}}'] for k in ("scheduler", "fetcher", "normalizer", "writer")],
          [1, 3, 1, 1], "processes of each stage")
    equal(got['usage_fetcher_account_failing{account="sim-000002",provider="openai",ending="auth_invalid"}'], 1, "the failing one")
    equal(got['usage_fetcher_account_failing{account="sim-000001",provider="openai",ending=""}'], 0, "a good one")
    check(0 <= got['usage_fetcher_account_lag_seconds{account="sim-000001",provider="openai"}'] <= 4500, "lag of a good one")
    equal((got["usage_fetcher_database_up"], got["usage_fetcher_last_run_accounts_failed"]), (1, 1), "database, failed accounts")


@test("metrics: /api/v1/stages and /readyz see three fetchers, and one that is killed")
def _():
    s = shared(whole)
    wait_for("a pulse of each", lambda: len(stages(s)[0]["instances"]) == 6, 5)
    answer, kinds = stages(s)
    equal([k["stage"] for k in answer["stages"]], ["scheduler", "fetcher", "normalizer", "writer"], "kinds of stages")
    equal(kinds["fetcher"]["fresh"], 3, "fresh fetchers")
    fetchers = [i for i in answer["instances"] if i["stage"] == "fetcher"]
    equal(sorted(i["pid"] for i in fetchers), sorted(p.pid for p in s.of("fetcher")), "process ids of the fetchers")
    check(sum(i["counters"]["requests_total"]["total"] for i in fetchers) > 0, "no requests")
    equal(get(s, "/readyz")[0], 200, "status of /readyz")
    writer = s.one("writer")
    writer.kill()
    wait_for("/readyz to miss the writer", lambda: get(s, "/readyz")[0] == 503, 10)
    matches("writer.*no pulse", get(s, "/readyz")[1], "/readyz")
    equal((kinds := stages(s)[1])["writer"]["fresh"], 0, "fresh writers")
    check(kinds["writer"]["ready"] is False and kinds["fetcher"]["ready"] is True, f"ready: {kinds}")
    s.wait_ready(s.start("writer"))
    wait_for("/readyz to see another", lambda: get(s, "/readyz")[0] == 200, 10)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def expressions():
    """(where, PromQL) of every alert and every panel."""
    with open(os.path.join(PROMETHEUS, "alerts.yml"), encoding="utf-8") as f:
        text = re.sub(r">-\n +(.*)\n +(.*)\n", r"\1 \2\n", f.read())
    found = [("alerts.yml", e) for e in re.findall(r"(?m)^ +expr: (.*)$", text)]
    for path in glob.glob(DASHBOARDS):
        with open(path, encoding="utf-8") as f:
            found += [(p["title"], t["expr"]) for p in json.load(f)["panels"] for t in p.get("targets", ())]
    return found


@test("metrics: deploy/: a Prometheus takes the scrape config, the alert rules and every panel's query")
def _():
    s = shared(whole)
    promtool("check", "config", os.path.join(PROMETHEUS, "prometheus.yml"))
    promtool("check", "rules", os.path.join(PROMETHEUS, "alerts.yml"))
    promtool("test", "rules", os.path.join(PROMETHEUS, "alerts_test.yml"))
    with open(os.path.join(PROMETHEUS, "alerts.yml"), encoding="utf-8") as f:
        alerts = re.findall(r"- alert: (\w+)[\s\S]*?severity: (\w+)", f.read())
    with open(os.path.join(ROOT, "docs", "operations.md"), encoding="utf-8") as f:
        equal(re.findall(r"(?m)^\| `(UsageFetcher\w+)` \((\w+)\)", f.read()), alerts, "the alerts that docs/operations.md explains")
    found = expressions()
    check(len(found) > 45, f"only {len(found)} expressions found")
    wait_for("only the living ones", lambda: len(stages(s)[0]["instances"]) == 6, 40)
    names = {re.sub(r"\{.*", "", name) for name in series(get(s, "/metrics")[1])}
    for where, e in found:
        for name in re.findall(r"usage_fetcher_[a-z_]+", e):
            check(name in names, f"{where}: /metrics has no {name}")
    folder = os.path.join(s.folder, "prometheus")
    shutil.copytree(PROMETHEUS, folder)
    config = os.path.join(folder, "prometheus.yml")
    with open(config, encoding="utf-8") as f:
        text = f.read().replace("127.0.0.1:8080", f"127.0.0.1:{s.gateway.port}").replace("15s", "1s")
    with open(config, "w", encoding="utf-8") as f:
        f.write(text)
    port = free_port()
    p = Process("prometheus", ["/usr/bin/prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
                               f"--web.listen-address=127.0.0.1:{port}"], {"PATH": "/usr/bin"},
                os.path.join(s.folder, "prometheus.log"), folder)
    try:
        def ask(query):
            url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    return json.load(answer)["data"]["result"]
            except urllib.error.HTTPError as e:
                return e.read().decode()
            except OSError:
                return []  # it does not listen yet

        def scraped():
            result = ask('count_over_time(up{job="usage-fetcher"}[1m])')
            return isinstance(result, list) and result and int(result[0]["value"][1]) >= 5  # a text: not ready yet
        wait_for("five scrapes", scraped, 40)
        equal(ask('up{job="usage-fetcher"}')[0]["value"][1], "1", "the scrape's success")
        for where, e in found:
            result = ask(e.replace("$__rate_interval", "10s"))
            check(isinstance(result, list), f"{where}: {e}: {result}")
            if where != "alerts.yml":
                check(result, f"{where}: {e}: no data")
        firing = {a["metric"]["alertname"] for a in ask('ALERTS{alertstate="firing"}')}
        equal(firing, set(), "alerts that fire on a pipeline that works")
    finally:
        p.stop()
