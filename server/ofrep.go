package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/flags"
)

// TargetHeader names the target of an OFREP request whose path doesn't.
const TargetHeader = "Sealstone-Target"

// ofrepRoutes serve OFREP 0.3. The target is in the path, else in the header,
// else the token's own.
func (s *Server) ofrepRoutes(e *echo.Echo) {
	use := []echo.MiddlewareFunc{s.authenticate, s.limit}
	var open []echo.MiddlewareFunc // for what brings its own token
	if len(s.cfg.CORSOrigins) > 0 {
		cors := middleware.CORSWithConfig(middleware.CORSConfig{
			AllowOrigins:  s.cfg.CORSOrigins,
			AllowMethods:  []string{http.MethodGet, http.MethodPost, http.MethodOptions},
			AllowHeaders:  []string{"Content-Type", "Authorization", "X-API-Key", "If-None-Match", TargetHeader},
			ExposeHeaders: []string{"ETag", "Retry-After"},
			MaxAge:        600,
		})
		use, open = append([]echo.MiddlewareFunc{cors}, use...), []echo.MiddlewareFunc{cors}
		nothing := func(echo.Context) error { return nil } // cors answers
		e.OPTIONS("/ofrep/v1/evaluate/flags", nothing, cors)
		e.OPTIONS("/ofrep/v1/evaluate/flags/*", nothing, cors)
		e.OPTIONS("/ofrep/v1/events", nothing, cors)
		e.OPTIONS("/at/*", nothing, cors)
	}
	e.POST("/ofrep/v1/evaluate/flags", s.evaluate, use...)
	e.POST("/ofrep/v1/evaluate/flags/*", s.evaluate, use...)
	e.POST("/at/*", s.evaluate, use...)
	e.GET("/ofrep/v1/events", s.ofrepEvents, open...)
}

const evaluatePath = "/ofrep/v1/evaluate/flags"

// ofrepPath splits /at/<target>/ofrep/v1/evaluate/flags/<key>. A target's scope
// has slashes, and so may a key; no key asks for all flags. The escaped path is
// taken and unescaped here, once: the key "100%" and the key "100%25" differ.
func ofrepPath(u *url.URL) (target, key string, ok bool) {
	target, key, ok = strings.Cut(u.EscapedPath(), evaluatePath)
	if !ok || key != "" && key[0] != '/' {
		return "", "", false
	}
	target, err := url.PathUnescape(strings.TrimPrefix(target, "/at/"))
	if err != nil {
		return "", "", false
	}
	key, err = url.PathUnescape(strings.TrimPrefix(key, "/"))
	return target, key, err == nil
}

// evaluate answers for one flag, or for all.
func (s *Server) evaluate(c echo.Context) error {
	path, key, ok := ofrepPath(c.Request().URL)
	if !ok {
		return &api.Error{Code: api.CodeNotFound, Detail: "no such route", Hint: "write /at/<service>@<scope>" + evaluatePath + "/<key>"}
	}
	t, err := targetOf(c, path)
	if err != nil {
		return err
	}
	q := c.Request().URL.RawQuery
	if q != "" && key == "" {
		s.awaitConfig(c.Request().Context(), t, c.QueryParams())
	}
	b := getBody()
	defer b.free()
	if err := b.read(c.Request()); err != nil {
		return err
	}
	if key == "" {
		return s.evaluateAll(c, t, b)
	}
	return s.evaluateOne(c, t, key, b)
}

// targetOf reads and authorises the target of a request.
func targetOf(c echo.Context, path string) (api.Target, error) {
	name, err := path, error(nil)
	if name == "" {
		name = c.Request().Header.Get(TargetHeader)
	}
	if name == "" {
		if name, err = onlyTarget(who(c)); err != nil {
			return api.Target{}, err
		}
	}
	t, err := api.ParseTarget(name)
	if err != nil {
		return t, &api.Error{Code: api.CodeInvalid, Detail: err.Error()}
	}
	if !who(c).readsTarget(t) {
		return t, &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not read %s", who(c).name, t)}
	}
	return t, nil
}

// onlyTarget is the target of a token that has one service and one scope.
func onlyTarget(p *principal) (string, error) {
	if p != everybody && len(p.services) == 1 && len(p.scopes) == 1 && p.services[0] != "*" && p.scopes[0] != "*" && p.scopes[0] != "" {
		return p.services[0] + "@" + string(p.scopes[0]), nil
	}
	return "", &api.Error{Code: api.CodeInvalid, Detail: "which target?", Hint: "send the header " + TargetHeader + ": service@scope, or use /at/<service>@<scope>" + evaluatePath}
}

// answersFor finds the bundle in effect for a target, ready to answer from.
func (s *Server) answersFor(t api.Target) (*program, *answers, error) {
	eff, err := s.resolve(t)
	if err != nil {
		return nil, nil, err
	}
	prog, err := s.programs.bundle(eff.Entry.Digest, t.Service, eff.Mode)
	if err != nil {
		return nil, nil, err
	}
	a, err := s.programs.answers(prog, t.Service, eff.Mode)
	return prog, a, err
}

func (s *Server) evaluateOne(c echo.Context, t api.Target, key string, b *body) error {
	prog, a, err := s.answersFor(t)
	if err != nil {
		return err
	}
	ctx, err := b.context()
	if err != nil {
		return err
	}
	now := time.Now()
	r := prog.Flags.Evaluate(key, ctx, now)
	b.out = a.appendOne(b.out, key, &r)
	b.out = append(b.appendAge(s, t.Service, now), "}}"...)
	return b.send(c, statusOf(r.ErrorCode))
}

func statusOf(code flags.ErrorCode) int {
	switch code {
	case "":
		return http.StatusOK
	case flags.FlagNotFound:
		return http.StatusNotFound
	}
	return http.StatusBadRequest
}

// evaluateAll answers for all flags of the target, or that nothing changed.
func (s *Server) evaluateAll(c echo.Context, t api.Target, b *body) error {
	prog, a, err := s.answersFor(t)
	if err != nil {
		return err
	}
	now := time.Now()
	stream := s.streams.url(t, who(c), prog.Digest, now)
	wanted := c.Request().Header["If-None-Match"]
	question := memoKey{}
	if !a.usesTime { // else the same question has another answer later
		question = keyOf(prog.Digest, stream, b.in.Bytes())
		if tag, ok := s.memo.get(question); ok && matches(wanted, tag) {
			return notModified(c, tag)
		}
	}
	ctx, err := b.context()
	if err != nil {
		return err
	}
	b.list = prog.Flags.EvaluateAll(ctx, now, b.list)
	b.out = a.appendAll(b.out, b.list, stream)
	tag := tagOf(b.out) // all of the answer but the age, which comes last
	if !a.usesTime {
		s.memo.put(question, tag)
	}
	if matches(wanted, tag) {
		return notModified(c, tag)
	}
	c.Response().Header()["Etag"] = []string{tag}
	b.out = append(b.appendAge(s, t.Service, now), "}}"...)
	return b.send(c, http.StatusOK)
}

func notModified(c echo.Context, tag string) error {
	c.Response().Header()["Etag"] = []string{tag}
	c.Response().WriteHeader(http.StatusNotModified)
	return nil
}

// appendAge writes how old this server's word is, in seconds. It signs a head
// whenever one is asked for, so that is 0, unless it knows that newer changes
// exist than it has: then it is the age of the newest one that it does have.
func (b *body) appendAge(s *Server, service string, now time.Time) []byte {
	snap, age := s.store.Snapshot(), int64(0)
	if snap.Checkpoint == nil {
		newest := time.Time{}
		for _, ch := range snap.State.ServiceChains(service) {
			if at, err := time.Parse(time.RFC3339, ch.Recorded); err == nil && at.After(newest) {
				newest = at
			}
		}
		age = max(0, int64(now.Sub(newest)/time.Second))
	}
	return strconv.AppendInt(append(b.out, `,"headAge":`...), age, 10)
}

// ofrepFault is a bad request that knows its error code.
type ofrepFault struct{ code, detail string }

func (f ofrepFault) Error() string { return f.code + ": " + f.detail }

// Unwrap gives the fault its row in the error table.
func (f ofrepFault) Unwrap() error { return &api.Error{Code: api.CodeInvalid, Detail: f.detail} }

// ofrepFailure is an answer without an evaluation. Clients take it for one only
// when it has an error code and, for a single flag, the key.
type ofrepFailure struct {
	Key          string `json:"key,omitempty"`
	ErrorCode    string `json:"errorCode"`
	ErrorDetails string `json:"errorDetails,omitempty"`
}

// ofrepError is the answer to what failed before anything was evaluated.
func ofrepError(err error, p api.Problem, u *url.URL) json.RawMessage {
	_, key, _ := ofrepPath(u)
	out := ofrepFailure{key, "GENERAL", strings.TrimSuffix(p.Detail+"; "+p.Hint, "; ")}
	if f, ok := errors.AsType[ofrepFault](err); ok {
		out.ErrorCode, out.ErrorDetails = f.code, f.detail
	}
	if p.Status == http.StatusNotFound && key != "" {
		out.ErrorCode = string(flags.FlagNotFound)
	}
	b, _ := json.Marshal(out) // strings only
	return b
}
