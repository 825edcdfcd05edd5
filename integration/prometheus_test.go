package integration_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/integration/proctest"
)

const observability = "../examples/observability"

// A real Prometheus, with the example's rules, scrapes a real server: every
// query of the rules and of the dashboard works, and shows what is live.
func TestPrometheusShowsWhatIsLive(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, which is not installed (Debian: prometheus)", tool)
		}
	}
	command(t, nil, "promtool", "test", "rules", filepath.Join(observability, "rules_test.yml"))
	command(t, nil, "promtool", "check", "config", filepath.Join(observability, "prometheus.yml"))
	_, s, clients := running(t)
	receipt(t, s, "safe-mode", "enter", "checkout", "degraded", "--scope", "prod/eu-west-1", "--reason", "INC-123")
	untilMode(t, clients[eu], "degraded")

	p := startPrometheus(t, s.URL)
	bundle := clients[eu].Live().Bundle.Hex()[:12]
	p.until(`sealstone_live_info{service="checkout",scope="prod/eu-west-1",mode="degraded",bundle="`+bundle+`"}`, "1")
	p.until(`sealstone_safe_mode{service="checkout",scope="prod/eu-west-1",mode="degraded"}`, "1")
	p.until(`sum(sealstone_instances{lease="live"})`, fmt.Sprint(len(clients)))
	p.until(`sum(sealstone:instances_by_bundle)`, fmt.Sprint(len(clients)))
	p.until(`ALERTS{alertname="SealstoneSafeMode",alertstate="firing",scope="prod/eu-west-1"}`, "1")
	p.until(`count(sealstone_bundle_activated_timestamp_seconds > 1e9) > bool 0`, "1")
	for _, expr := range dashboardQueries(t) {
		if _, err := p.query(expr); err != nil {
			t.Errorf("the dashboard's %s: %v", expr, err)
		}
	}
	var notes []api.Annotation
	s.JSON("/v1/annotations?tags=safe-mode.entered", &notes)
	if len(notes) != 1 || !strings.Contains(notes[0].Text, "INC-123") {
		t.Errorf("annotations %+v", notes)
	}
}

// dashboardQueries are the dashboard's expressions, with its variables filled in.
func dashboardQueries(t *testing.T) (list []string) {
	t.Helper()
	var d struct {
		Panels      []struct{ Targets []struct{ Expr string } }
		Annotations struct{ List []struct{ Expr string } }
	}
	if err := json.Unmarshal([]byte(proctest.ReadFile(t, filepath.Join(observability, "dashboard.json"))), &d); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$service", ".*", "$__rate_interval", "1m").Replace
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			list = append(list, fill(q.Expr))
		}
	}
	for _, a := range d.Annotations.List {
		list = append(list, fill(a.Expr))
	}
	if len(list) < 8 {
		t.Errorf("only %d queries were found in the dashboard", len(list))
	}
	return list
}

// prom is a Prometheus of its own, on loopback, ended with its test.
type prom struct {
	t   *testing.T
	url string
}

func startPrometheus(t *testing.T, server string) *prom {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"prometheus.yml", "rules.yml"} {
		text := proctest.ReadFile(t, filepath.Join(observability, name))
		text = strings.ReplaceAll(text, "127.0.0.1:7460", strings.TrimPrefix(server, "http://"))
		proctest.WriteFile(t, filepath.Join(dir, name), strings.ReplaceAll(text, "interval: 15s", "interval: 200ms"), 0o644)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a free port, given up for it
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			t.Logf("prometheus:\n%s", proctest.ReadFile(t, log.Name()))
		}
	})
	return &prom{t, "http://" + addr}
}

// query returns the value of the first sample, "" when there is none.
func (p *prom) query(expr string) (string, error) {
	res, err := http.Get(p.url + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal(b, &answer); err != nil || answer.Status != "success" {
		return "", fmt.Errorf("%w: %s %s", err, res.Status, b)
	}
	if len(answer.Data.Result) == 0 {
		return "", nil
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1]), nil
}

func (p *prom) until(expr, want string) {
	p.t.Helper()
	proctest.Until(p.t, expr+" to be "+want, func() bool {
		got, err := p.query(expr)
		return err == nil && got == want
	})
}

// What a process in another language sends, by the example's shell script.
func TestShellScriptReports(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"sh", "curl", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, which is not installed", tool)
		}
	}
	_, s, clients := running(t)
	bundle := string(clients[us].Live().Bundle)
	command(t, []string{"SERVER=" + s.URL, "TARGET=" + us, "BUNDLE=" + bundle, "ID=worker-1", "VERSION=3.1.4", "ONCE=1"}, "sh", filepath.Join(observability, "report.sh"))
	sheet := s.OK("live", "--instance", "worker-1")
	for _, want := range []string{us, bundle, "3.1.4", "READY"} {
		if !strings.Contains(sheet, want) {
			t.Errorf("no %s in\n%s", want, sheet)
		}
	}
	if out := s.OK("live", "deps", "urllib3", "--below", "2.2.2"); !strings.Contains(out, us) || !strings.Contains(out, "pkg:pypi/urllib3@2.2.1") {
		t.Errorf("dependencies:\n%s", out)
	}
}
