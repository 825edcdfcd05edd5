package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/ledger"
)

// variety has a flag of each kind of outcome.
const variety = `
metadata: {team: checkout}
flags:
  express: {state: ENABLED, variants: {on: true, off: false}, defaultVariant: off}
  banner:
    state: ENABLED
    variants: {plain: "plain", "it's <b>": "it's \"new\""}
    defaultVariant: plain
    targeting: {if: [{ends_with: [{var: email}, "@shop.example"]}, "it's <b>"]}
  limit: {state: ENABLED, variants: {low: 10, high: 12.5}, defaultVariant: high, metadata: {owner: sre, headAge: 7, version: theirs}}
  layout: {state: ENABLED, variants: {a: {z: 1, b: [1, {c: true}]}}, defaultVariant: a}
  code: {state: ENABLED, variants: {a: true}}
  disabled: {state: DISABLED, variants: {a: true}, defaultVariant: a}
  broken: {state: ENABLED, variants: {a: true}, targeting: {var: pick}}
  a/b: {state: ENABLED, variants: {a: true}, defaultVariant: a}
  a%2Fb: {state: ENABLED, variants: {a: "escaped"}, defaultVariant: a}
  "100%": {state: ENABLED, variants: {a: true}, defaultVariant: a}
`

// timed has a flag that reads the clock.
const timed = `
flags:
  early: {state: ENABLED, variants: {a: 1, b: 2}, defaultVariant: a, targeting: {if: [{"<": [{var: $flagd.timestamp}, 4000000000]}, b, a]}}
`

const (
	bulkPath = "/at/checkout@prod/ofrep/v1/evaluate/flags"
	flagPath = bulkPath + "/"
)

// flagRig serves flags as checkout's.
func flagRig(t testing.TB, flags string, edit func(*Config)) *rig {
	t.Helper()
	r := newRig(t, edit)
	r.push(map[string]string{"services/checkout/flags/checkout.yaml": flags})
	return r
}

func (r *rig) post(status int, path, body string, header ...string) (*http.Response, []byte) {
	r.t.Helper()
	res := r.do(http.MethodPost, path, body, header...)
	return res, r.expect(status, res)
}

func TestEachStatusHasItsBody(t *testing.T) {
	r := flagRig(t, variety, nil)
	digest := r.effect(t, "checkout@prod").Entry.Digest
	meta := func(more string) string {
		return fmt.Sprintf(`{"flagSetId":"checkout","mode":"normal",%s"team":"checkout","version":"%s","headAge":0}`, more, digest)
	}
	fault := func(key, code, detail string) string {
		if key != "" {
			key = `"key":"` + key + `",`
		}
		return `{` + key + `"errorCode":"` + code + `","errorDetails":"` + detail + `"}`
	}
	big := `{"context":{"x":"` + strings.Repeat("x", maxOFREPBody) + `"}}`
	cases := map[string]struct {
		path, body, schema string
		status             int
		want               string
	}{
		"static":         {flagPath + "express", `{"context":{"targetingKey":"u"}}`, "serverEvaluationSuccess", 200, `{"key":"express","reason":"STATIC","value":false,"variant":"off","metadata":` + meta("") + `}`},
		"targeting":      {flagPath + "banner", `{"context":{"email":"a@shop.example"}}`, "serverEvaluationSuccess", 200, `{"key":"banner","reason":"TARGETING_MATCH","value":"it's \"new\"","variant":"it's <b>","metadata":` + meta("") + `}`},
		"rule is silent": {flagPath + "banner", `{}`, "serverEvaluationSuccess", 200, `{"key":"banner","reason":"DEFAULT","value":"plain","variant":"plain","metadata":` + meta("") + `}`},
		"number":         {flagPath + "limit", ``, "serverEvaluationSuccess", 200, `{"key":"limit","reason":"STATIC","value":12.5,"variant":"high","metadata":` + meta(`"owner":"sre",`) + `}`},
		"object":         {flagPath + "layout", `{"context":null}`, "serverEvaluationSuccess", 200, `{"key":"layout","reason":"STATIC","value":{"b":[1,{"c":true}],"z":1},"variant":"a","metadata":` + meta("") + `}`},
		"code default":   {flagPath + "code", ` `, "serverEvaluationSuccess", 200, `{"key":"code","reason":"DEFAULT","metadata":` + meta("") + `}`},
		"disabled":       {flagPath + "disabled", `null`, "", 400, fault("disabled", "INVALID_CONTEXT", "the body is not a JSON object")},
		"disabled flag":  {flagPath + "disabled", `{"more":1}`, "serverEvaluationSuccess", 200, `{"key":"disabled","reason":"DISABLED","metadata":` + meta("") + `}`},
		"general":        {flagPath + "broken", `{"context":{"pick":"zz"}}`, "evaluationFailure", 400, `{"key":"broken","errorCode":"GENERAL","errorDetails":"the rule of flag \"broken\" gives no name of a variant","metadata":` + meta("") + `}`},
		"slash":          {flagPath + "a/b", `{}`, "serverEvaluationSuccess", 200, `{"key":"a/b","reason":"STATIC","value":true,"variant":"a","metadata":` + meta("") + `}`},
		"escaped slash":  {flagPath + "a%2Fb", `{}`, "serverEvaluationSuccess", 200, `{"key":"a/b","reason":"STATIC","value":true,"variant":"a","metadata":` + meta("") + `}`},
		"escaped twice":  {flagPath + "a%252Fb", `{}`, "serverEvaluationSuccess", 200, `{"key":"a%2Fb","reason":"STATIC","value":"escaped","variant":"a","metadata":` + meta("") + `}`},
		"percent":        {flagPath + "100%25", `{}`, "serverEvaluationSuccess", 200, `{"key":"100%","reason":"STATIC","value":true,"variant":"a","metadata":` + meta("") + `}`},
		"escaped target": {"/at/checkout%40prod%2Feu-west-1/ofrep/v1/evaluate/flags/code", `{}`, "serverEvaluationSuccess", 200, ""},
		"no such flag":   {flagPath + "nope", `{}`, "flagNotFound", 404, ""},
		"odd key":        {flagPath + "%ff%22", `{}`, "flagNotFound", 404, ""},
		"no JSON":        {flagPath + "express", `{"context"`, "evaluationFailure", 400, fault("express", "INVALID_CONTEXT", "the body: JSON at byte 10: ':' is expected")},
		"context number": {flagPath + "express", `{"context":1}`, "evaluationFailure", 400, fault("express", "INVALID_CONTEXT", "context is not a JSON object")},
		"bulk, no JSON":  {bulkPath, `[]`, "bulkEvaluationFailure", 400, fault("", "INVALID_CONTEXT", "the body is not a JSON object")},
		"too large":      {flagPath + "express", big, "evaluationFailure", 413, fault("express", "GENERAL", "an evaluation context may have 1048576 bytes")},
		"bulk too large": {bulkPath, big, "bulkEvaluationFailure", 413, fault("", "GENERAL", "an evaluation context may have 1048576 bytes")},
		"no target":      {"/ofrep/v1/evaluate/flags/express", `{}`, "evaluationFailure", 400, ""},
		"bad target":     {"/at/checkout/ofrep/v1/evaluate/flags/express", `{}`, "evaluationFailure", 400, ""},
		"not activated":  {"/at/checkout@test/ofrep/v1/evaluate/flags/express", `{}`, "flagNotFound", 404, ""},
		"bulk of none":   {"/at/nope@prod/ofrep/v1/evaluate/flags", `{}`, "bulkEvaluationFailure", 404, ""},
		"longer path":    {bulkPath + "x", `{}`, "", 404, ""},
		"no route at":    {"/at/checkout@prod/ofrep/v1/evaluate", `{}`, "", 404, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			res, b := r.post(c.status, c.path, c.body)
			if got := res.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/") || !strings.Contains(got, "json") {
				t.Errorf("Content-Type %q", got)
			}
			if c.want != "" && string(bytes.TrimSpace(b)) != c.want {
				t.Errorf("got  %s\nwant %s", b, c.want)
			}
			if c.schema != "" {
				valid(t, c.schema, b)
			}
		})
	}
}

func (r *rig) effect(t testing.TB, target string) *effect {
	t.Helper()
	at, err := api.ParseTarget(target)
	if err != nil {
		t.Fatal(err)
	}
	eff, err := r.resolve(at)
	if err != nil {
		t.Fatal(err)
	}
	return eff
}

func TestBulkHasEveryFlagInOrder(t *testing.T) {
	r := flagRig(t, variety, nil)
	res, b := r.post(200, bulkPath, `{"context":{"targetingKey":"u","pick":"zz"}}`)
	valid(t, "bulkEvaluationSuccess", b)
	_, slashed := r.post(200, bulkPath+"/", `{"context":{"targetingKey":"u","pick":"zz"}}`)
	_, byHeader := r.post(200, "/ofrep/v1/evaluate/flags", `{"context":{"targetingKey":"u","pick":"zz"}}`, TargetHeader, "checkout@prod")
	if !bytes.Equal(b, slashed) || !bytes.Equal(b, byHeader) {
		t.Error("the same question is answered differently")
	}
	got := decode[struct {
		Flags []struct {
			Key, Reason, ErrorCode string
			Value                  any
			Metadata               map[string]any
		}
		Metadata map[string]any
	}](t, b)
	var lines []string
	for _, f := range got.Flags {
		lines = append(lines, strings.TrimSpace(fmt.Sprint(f.Key, " ", f.Reason, f.ErrorCode, " ", f.Value)))
		if f.Metadata["flagSetId"] != "checkout" || f.Metadata["mode"] != "normal" || f.Metadata["version"] != got.Metadata["version"] || f.Metadata["headAge"] != nil {
			t.Errorf("%s has metadata %v", f.Key, f.Metadata)
		}
	}
	want := []string{"100% STATIC true", "a%2Fb STATIC escaped", "a/b STATIC true", "banner DEFAULT plain", "broken GENERAL <nil>", "code DEFAULT <nil>",
		"disabled DISABLED <nil>", "express STATIC false", "layout STATIC map[b:[1 map[c:true]] z:1]", "limit STATIC 12.5"}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s", strings.Join(lines, "\n"))
	}
	if got.Metadata["team"] != "checkout" || got.Metadata["headAge"] != 0.0 || got.Metadata["flagSetId"] != "checkout" || !strings.HasPrefix(got.Metadata["version"].(string), "sha256:") {
		t.Errorf("metadata %v", got.Metadata)
	}
	if tag := res.Header.Get("ETag"); !regexp.MustCompile(`^"[0-9a-f]{16}"$`).MatchString(tag) {
		t.Errorf("tag %s", tag)
	}
}

func TestATagIsGoodForOneAnswer(t *testing.T) {
	r := flagRig(t, variety, nil)
	const one, other = `{"context":{"targetingKey":"u"}}`, `{"context":{"targetingKey":"u","email":"a@shop.example"}}`
	res, _ := r.post(200, bulkPath, one)
	tag := res.Header.Get("ETag")
	for _, h := range []string{tag, "W/" + tag, `"x", ` + tag, "*", strings.Trim(tag, `"`), `"x" ,W/` + tag + `, "y"`} {
		res, b := r.post(304, bulkPath, one, "If-None-Match", h)
		if len(b) != 0 || res.Header.Get("ETag") != tag {
			t.Errorf("%s: %q, tag %s", h, b, res.Header.Get("ETag"))
		}
	}
	for _, h := range []string{"", `"x"`, tag[:10] + `"`, `W/"*"`} {
		r.post(200, bulkPath, one, "If-None-Match", h)
	}
	res, _ = r.post(200, bulkPath, other, "If-None-Match", tag)
	if res.Header.Get("ETag") == tag {
		t.Error("another answer has the same tag")
	}
	// Spelled differently, the context isn't remembered, but the answer is the same.
	r.post(304, bulkPath, `{ "context": {"targetingKey": "u", "unread": 1} }`, "If-None-Match", tag)
	r.push(map[string]string{"services/checkout/config/http.yaml": "timeout: 31\n"})
	r.post(200, bulkPath, one, "If-None-Match", tag) // the version is part of the answer
	r.post(400, bulkPath, `{"context":7}`, "If-None-Match", "*")
}

// Two answers have one tag exactly when they differ in nothing but their age.
func TestTagsCoverAllButTheAge(t *testing.T) {
	r := flagRig(t, variety, nil)
	age := regexp.MustCompile(`"headAge":\d+}}$`)
	byTag, byBody := map[string]string{}, map[string]string{}
	for i := range 64 {
		email, pick := []string{"a@shop.example", "b@x", ""}[i%3], []string{"a", "b"}[i/3%2]
		ctx := fmt.Sprintf(`{"context":{"email":%q,"pick":%q,"n":%d}}`, email, pick, i)
		res, b := r.post(200, []string{bulkPath, strings.Replace(bulkPath, "prod", "staging", 1)}[i/6%2], ctx)
		body, tag := age.ReplaceAllString(string(b), ""), res.Header.Get("ETag")
		if old, ok := byTag[tag]; ok && old != body {
			t.Fatalf("one tag for\n%s\n%s", old, body)
		}
		if old, ok := byBody[body]; ok && old != tag {
			t.Fatalf("tags %s and %s for %s", old, tag, body)
		}
		byTag[tag], byBody[body] = body, tag
	}
	if len(byTag) != 8 {
		t.Errorf("%d answers", len(byTag))
	}
}

// What is remembered answers without evaluating, unless a flag reads the clock.
func TestWhatIsRememberedIsNotEvaluated(t *testing.T) {
	for name, c := range map[string]struct {
		flags  string
		status int
	}{"plain": {variety, 304}, "timed": {timed, 200}} {
		t.Run(name, func(t *testing.T) {
			r := flagRig(t, c.flags, nil)
			res, _ := r.post(200, bulkPath, `{}`)
			real := res.Header.Get("ETag")
			for k := range r.memo.young {
				r.memo.young[k] = `"poisoned"`
			}
			r.post(c.status, bulkPath, `{}`, "If-None-Match", `"poisoned"`)
			if c.status == 200 && len(r.memo.young) > 0 {
				t.Error("an answer that depends on the clock is remembered")
			}
			if c.status == 200 {
				r.post(304, bulkPath, `{}`, "If-None-Match", real)
			}
		})
	}
}

func TestTagsAreForgottenInBounds(t *testing.T) {
	var m tags
	key := func(i int) (k memoKey) { copy(k[:], strconv.Itoa(i)); return k }
	for i := range 3 * maxTags {
		m.put(key(i), "t")
		if _, ok := m.get(key(0)); !ok {
			t.Fatalf("what is asked for all the time was forgotten after %d", i)
		}
	}
	if _, ok := m.get(key(1)); ok || len(m.young)+len(m.old) > 2*maxTags {
		t.Errorf("%d and %d tags, an old one: %v", len(m.young), len(m.old), ok)
	}
}

func TestContextsAreReadLeniently(t *testing.T) {
	r := flagRig(t, variety, nil)
	for name, body := range map[string]string{
		"half an emoji": `{"context":{"email":"a@shop.example","name":"\ud83d"}}`,
		"a big id":      `{"context":{"email":"a@shop.example","id":12345678901234567890}}`,
		"twice":         `{"context":{"email":"x","email":"a@shop.example"}}`,
		"key missing":   `{"context":{"email":"a@shop.example"}}`,
		"key no string": `{"context":{"email":"a@shop.example","targetingKey":5}}`,
	} {
		if _, b := r.post(200, flagPath+"banner", body); !bytes.Contains(b, []byte("TARGETING_MATCH")) {
			t.Errorf("%s: %s", name, b)
		}
	}
	deep := `{"context":{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`
	r.post(400, flagPath+"banner", deep)
	if v := any(nil); json.Unmarshal([]byte(deep), &v) != nil || !deeper(v, canon.MaxDepth) || deeper(v, 200) {
		t.Error("depth is counted wrong")
	}
}

func TestTheAgeIsZeroUnlessTheServerIsBehind(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	rolledBack(r)
	snap, newest := r.store.Snapshot(), ""
	for _, ch := range snap.State.ServiceChains("checkout") {
		newest = max(newest, ch.Recorded)
	}
	at, err := time.Parse(time.RFC3339, newest)
	if err != nil {
		t.Fatal(err)
	}
	var b body
	if got := string(b.appendAge(r.Server, "checkout", at.Add(90*time.Second))); got != `,"headAge":90` {
		t.Error(got)
	}
	r.post(200, bulkPath, `{}`)
}

func TestErrorsWithoutAnEvaluation(t *testing.T) {
	r := newRig(t, nil)
	r.push(map[string]string{"clients.yaml": "clients:\n  - name: eu\n    token: " + strconv.Quote(string(api.DigestOf([]byte("eu")))) + "\n    services: [checkout]\n    scopes: [prod/eu-west-1]\n"})
	for _, c := range []struct {
		status int
		path   string
		header []string
		schema string
	}{
		{401, flagPath + "express", nil, "evaluationFailure"},
		{401, bulkPath, []string{"X-API-Key", "wrong"}, "bulkEvaluationFailure"},
		{403, flagPath + "express", []string{"Authorization", "Bearer eu"}, "evaluationFailure"},
		{403, bulkPath, []string{"Authorization", "Bearer eu"}, "bulkEvaluationFailure"},
		{200, "/ofrep/v1/evaluate/flags", []string{"Authorization", "bearer eu"}, "bulkEvaluationSuccess"},
		{403, "/ofrep/v1/evaluate/flags", []string{"X-API-Key", "eu", TargetHeader, "checkout@prod"}, "bulkEvaluationFailure"},
		{200, "/ofrep/v1/evaluate/flags", []string{"X-API-Key", "eu", TargetHeader, "checkout@prod/eu-west-1/canary"}, "bulkEvaluationSuccess"},
	} {
		_, b := r.post(c.status, c.path, "{}", c.header...)
		valid(t, c.schema, b)
	}
	r.expect(405, r.do(http.MethodGet, "/ofrep/v1/evaluate/flags", "", "X-API-Key", "eu"))

	// What nobody foresaw says so, names the flag, and nothing else.
	w := httptest.NewRecorder()
	r.answerError(os.ErrClosed, echo.New().NewContext(httptest.NewRequest(http.MethodPost, flagPath+"a%2Fb", nil), w))
	if want := `{"key":"a/b","errorCode":"GENERAL","errorDetails":"internal error; the server's log has the cause"}`; w.Code != 500 || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	valid(t, "evaluationFailure", w.Body.Bytes())
}

func TestABodyThatEndsEarlyIsTheClientsFault(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	req := httptest.NewRequest(http.MethodPost, flagPath+"express", errReader{})
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	if w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

func TestEachClientHasItsRate(t *testing.T) {
	r := newRig(t, func(c *Config) { c.OFREPRate = 2 })
	token := func(s string) string { return strconv.Quote(string(api.DigestOf([]byte(s)))) }
	r.push(map[string]string{"clients.yaml": "clients:\n  - {name: a, token: " + token("a") + ", services: [checkout], scopes: [prod]}\n  - {name: b, token: " + token("b") + ", services: [checkout], scopes: [prod]}\n"})
	for range 2 {
		r.post(200, "/ofrep/v1/evaluate/flags", "{}", "X-API-Key", "a")
	}
	res, b := r.post(429, "/ofrep/v1/evaluate/flags", "{}", "X-API-Key", "a")
	valid(t, "bulkEvaluationFailure", b)
	if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err != nil || n < 1 {
		t.Errorf("Retry-After %q", res.Header.Get("Retry-After"))
	}
	_, b = r.post(429, "/ofrep/v1/evaluate/flags/express", "{}", "X-API-Key", "a")
	valid(t, "evaluationFailure", b)
	r.post(200, "/ofrep/v1/evaluate/flags", "{}", "X-API-Key", "b")
	r.get(200, "/v1/head?service=checkout", "X-API-Key", "a")

	open := newRig(t, func(c *Config) { c.OFREPRate = 0.5 })
	open.sync()
	open.post(200, bulkPath, "{}")
	res, _ = open.post(429, bulkPath, "{}", "X-Forwarded-For", "203.0.113.9")
	if got := res.Header.Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q", got)
	}
}

func TestBrowsersOfListedOriginsMayCall(t *testing.T) {
	const origin = "https://shop.example"
	r := newRig(t, func(c *Config) { c.CORSOrigins = []string{origin} })
	r.sync()
	for _, path := range []string{"/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/a%2Fb", flagPath + "express", bulkPath, "/ofrep/v1/events"} {
		res := r.do(http.MethodOptions, path, "", "Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "if-none-match")
		if res.StatusCode != 204 || res.Header.Get("Access-Control-Allow-Origin") != origin {
			t.Errorf("%s: %d %v", path, res.StatusCode, res.Header)
		}
		allowed := strings.ToLower(res.Header.Get("Access-Control-Allow-Headers"))
		for _, h := range []string{"content-type", "authorization", "x-api-key", "if-none-match", "sealstone-target"} {
			if !strings.Contains(allowed, h) {
				t.Errorf("%s: %s isn't allowed: %s", path, h, allowed)
			}
		}
		if res := r.do(http.MethodOptions, path, "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"); res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: another origin is let in", path)
		}
	}
	for status, path := range map[int]string{200: bulkPath, 404: flagPath + "nope", 400: "/ofrep/v1/evaluate/flags"} {
		res, _ := r.post(status, path, "{}", "Origin", origin)
		if got := res.Header.Get("Access-Control-Expose-Headers"); res.Header.Get("Access-Control-Allow-Origin") != origin || !strings.Contains(got, "ETag") || !strings.Contains(got, "Retry-After") {
			t.Errorf("%s: %v", path, res.Header)
		}
	}
	plain := newRig(t, nil)
	plain.sync()
	if res, _ := plain.post(200, bulkPath, "{}", "Origin", origin); res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("an origin is let in that nobody listed")
	}
}

func TestASafeModeIsInEveryAnswer(t *testing.T) {
	r := flagRig(t, variety, nil)
	res, _ := r.post(200, bulkPath, "{}")
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	_, b := r.post(200, bulkPath, "{}", "If-None-Match", res.Header.Get("ETag"))
	modes := map[string]bool{}
	for _, m := range regexp.MustCompile(`"mode":"(\w+)"`).FindAllStringSubmatch(string(b), -1) {
		modes[m[1]] = true
	}
	if got := slices.Collect(maps.Keys(modes)); !slices.Equal(got, []string{"degraded"}) {
		t.Errorf("modes %v", got)
	}
}
