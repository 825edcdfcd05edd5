package server

import (
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
)

// Every route under /v1 refuses a query member that it doesn't know, and a
// method that it doesn't have.
func TestRoutesTakeWhatTheyKnow(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	n, methods := 0, map[string]int{}
	for _, route := range r.routes().(*echo.Echo).Routes() {
		if !strings.HasPrefix(route.Path, "/v1/") {
			continue
		}
		n++
		methods[route.Path]++
		path := strings.ReplaceAll(route.Path, ":index", "0")
		if b := r.expect(400, r.do(route.Method, path+"?servce=checkout", "")); !strings.Contains(string(b), `query member \"servce\" is unknown here`) {
			t.Errorf("%s %s says %s", route.Method, path, b)
		}
		res := r.do(http.MethodDelete, path, "")
		r.expect(405, res)
		if allow := res.Header.Get("Allow"); !strings.Contains(allow, route.Method) {
			t.Errorf("DELETE %s: Allow is %q", path, allow)
		}
	}
	if n < 16 || methods["/v1/changes"] != 2 {
		t.Errorf("%d routes: %v", n, methods)
	}
	r.expect(405, r.do(http.MethodGet, "/v1/instances", ""))
	r.get(404, "/v1/nothing")
	if b := r.get(400, "/v1/changes?servce=checkout"); !strings.Contains(string(b), "known are service, scope, kind") {
		t.Errorf("%s", b)
	}
}
