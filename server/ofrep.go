package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/internal/canon"
)

// TargetHeader names the target of an OFREP request whose path doesn't.
const TargetHeader = "Sealstone-Target"

// maxOFREPBody bounds an evaluation context.
const maxOFREPBody = "1M"

// ofrepRoutes serve OFREP 0.3. The target is in the path, else in the header,
// else the token's own.
func (s *Server) ofrepRoutes(e *echo.Echo) {
	cors := middleware.CORSWithConfig(middleware.CORSConfig{
		AllowOrigins:  s.cfg.CORSOrigins,
		AllowMethods:  []string{http.MethodPost, http.MethodOptions},
		AllowHeaders:  []string{"Content-Type", "Authorization", "X-API-Key", "If-None-Match", TargetHeader},
		ExposeHeaders: []string{"ETag", "Retry-After"},
	})
	use := []echo.MiddlewareFunc{middleware.BodyLimit(maxOFREPBody), s.authenticate}
	if len(s.cfg.CORSOrigins) > 0 {
		use = append([]echo.MiddlewareFunc{cors}, use...)
	}
	e.POST("/ofrep/v1/evaluate/flags/*", s.evaluate, use...)
	e.POST("/at/*", s.evaluateAt, use...)
	if len(s.cfg.CORSOrigins) > 0 {
		nothing := func(echo.Context) error { return nil }
		e.OPTIONS("/ofrep/v1/evaluate/flags/*", nothing, cors)
		e.OPTIONS("/at/*", nothing, cors)
	}
}

const ofrepPath = "/ofrep/v1/evaluate/flags/"

// evaluateAt takes /at/<target>/ofrep/v1/evaluate/flags/<key>; a target's scope
// has slashes, and so may a key.
func (s *Server) evaluateAt(c echo.Context) error {
	path, key, ok := strings.Cut(c.Param("*"), ofrepPath)
	if !ok {
		return &api.Error{Code: api.CodeNotFound, Detail: "no such route", Hint: "write /at/<service>@<scope>" + ofrepPath + "<key>"}
	}
	return s.evaluateFor(c, path, key)
}

func (s *Server) evaluate(c echo.Context) error {
	t := c.Request().Header.Get(TargetHeader)
	if t == "" {
		var err error
		if t, err = onlyTarget(who(c)); err != nil {
			return err
		}
	}
	return s.evaluateFor(c, t, c.Param("*"))
}

// onlyTarget is the target of a token that has one service and one scope.
func onlyTarget(p *principal) (string, error) {
	if p != everybody && len(p.services) == 1 && len(p.scopes) == 1 && p.services[0] != "*" && p.scopes[0] != "*" {
		return p.services[0] + "@" + string(p.scopes[0]), nil
	}
	return "", &api.Error{Code: api.CodeInvalid, Detail: "which target?", Hint: "send the header " + TargetHeader + ": service@scope, or use /at/<service>@<scope>" + ofrepPath + "<key>"}
}

func (s *Server) evaluateFor(c echo.Context, target, key string) error {
	prog, eff, err := s.programFor(c, target)
	if err != nil {
		return err
	}
	ctx, err := readContext(c.Request().Body)
	if err != nil {
		return ofrepFault{key: key, code: "INVALID_CONTEXT", detail: err.Error()}
	}
	if key, err = url.PathUnescape(key); err != nil || key == "" {
		return ofrepFault{key: key, code: "GENERAL", detail: "no flag key in the path"}
	}
	r := prog.Flags.Evaluate(key, ctx, time.Now())
	meta := s.flagMetadata(r.Metadata, target, prog, eff)
	if r.ErrorCode != "" {
		status := http.StatusBadRequest
		if r.ErrorCode == flags.FlagNotFound {
			status = http.StatusNotFound
		}
		return c.JSON(status, map[string]any{"key": key, "errorCode": r.ErrorCode, "errorDetails": r.ErrorDetail, "metadata": meta})
	}
	out := map[string]any{"key": key, "reason": r.Reason, "metadata": meta}
	if r.Value != nil {
		out["value"], out["variant"] = r.Value, r.Variant
	}
	return c.JSON(http.StatusOK, out)
}

// programFor resolves and authorises a target.
func (s *Server) programFor(c echo.Context, target string) (*program, *effect, error) {
	target, err := url.PathUnescape(target)
	if err != nil {
		return nil, nil, &api.Error{Code: api.CodeInvalid, Detail: "target: " + err.Error()}
	}
	t, err := api.ParseTarget(target)
	if err != nil {
		return nil, nil, &api.Error{Code: api.CodeInvalid, Detail: err.Error()}
	}
	if !who(c).readsTarget(t) {
		return nil, nil, &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not read %s", who(c).name, t)}
	}
	eff, err := s.resolve(t)
	if err != nil {
		return nil, nil, err
	}
	prog, err := s.programs.bundle(eff.Entry.Digest, t.Service, eff.Mode)
	return prog, eff, err
}

// flagMetadata adds what every answer carries: the flag set, the bundle that is
// its version, the mode, and how fresh this server's word is.
func (s *Server) flagMetadata(own map[string]any, target string, prog *program, eff *effect) map[string]any {
	out := make(map[string]any, len(own)+5)
	for k, v := range own {
		out[k] = v
	}
	service, _, _ := strings.Cut(target, "@")
	out["flagSetId"], out["version"], out["mode"] = service, string(prog.Digest), string(eff.Mode)
	out["index"] = eff.index()
	return out
}

// readContext accepts OFREP's body, leniently: an empty body and a missing
// context are an empty context.
func readContext(body io.Reader) (map[string]any, error) {
	b, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return map[string]any{}, nil
	}
	var req struct {
		Context json.RawMessage `json:"context"`
	}
	if err := json.Unmarshal(b, &req); err != nil {
		return nil, errors.New("the body is not a JSON object")
	}
	if len(req.Context) == 0 || string(req.Context) == "null" {
		return map[string]any{}, nil
	}
	v, err := canon.Parse(req.Context, canon.MaxDepth)
	if err != nil {
		return nil, fmt.Errorf("context: %w", err)
	}
	ctx, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("context is not an object")
	}
	return ctx, nil
}

// ofrepFault is a bad request that knows its flag.
type ofrepFault struct{ key, code, detail string }

func (f ofrepFault) Error() string { return f.code + ": " + f.detail }

// Unwrap gives the fault its row in the error table.
func (f ofrepFault) Unwrap() error { return &api.Error{Code: api.CodeInvalid, Detail: f.detail} }

// ofrepError is the error answer of OFREP for what is not an evaluation's own.
func ofrepError(err error, p api.Problem) map[string]any {
	out := map[string]any{"errorCode": "GENERAL", "errorDetails": strings.TrimSpace(p.Detail + " " + p.Hint)}
	if f, ok := errors.AsType[ofrepFault](err); ok {
		out["key"], out["errorCode"], out["errorDetails"] = f.key, f.code, f.detail
	}
	if p.Status == http.StatusNotFound {
		out["errorCode"] = "FLAG_NOT_FOUND"
	}
	return out
}
