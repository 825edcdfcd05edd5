package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/sealstone/sealstone/api"
)

// routes is the one port. Each group says who may use it.
func (s *Server) routes() http.Handler {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = s.answerError
	e.Use(boundWrites, middleware.RecoverWithConfig(middleware.RecoverConfig{LogErrorFunc: s.logPanic}), s.metrics.count)

	e.GET("/healthz", func(c echo.Context) error { return c.String(http.StatusOK, "ok\n") })
	e.GET("/readyz", s.readyz)
	e.GET("/readyz/writes", s.readyzWrites)
	e.GET("/metrics", echo.WrapHandler(s.metrics.handler()))
	e.GET("/v1/trust", s.getTrust, takes(""))
	e.POST("/v1/changes", s.postChange, takes(""), middleware.BodyLimit("128KiB")) // the statement is its own authority
	e.POST("/hooks/git", s.postHook, middleware.BodyLimit("1MiB"))

	v1 := func(method, path, query string, h echo.HandlerFunc, more ...echo.MiddlewareFunc) {
		e.Add(method, "/v1"+path, h, append([]echo.MiddlewareFunc{s.authenticate, takes(query)}, more...)...)
	}
	v1("GET", "/head", "service wait", s.getHead)
	v1("GET", "/evidence", "service from have detail", s.getEvidence)
	v1("GET", "/watch", "service target", s.getWatch)
	v1("GET", "/pending", "service", s.getPending)
	v1("GET", "/changes", changesQuery, s.getChanges)
	v1("GET", "/changes/watch", "after", s.watchChanges, needLog)
	v1("GET", "/annotations", changesQuery+" tags", s.getAnnotations)
	v1("GET", "/changes/:index", "proof size from", s.getChange)
	v1("GET", "/history", "target from to at limit before", s.getHistory)
	v1("GET", "/safe-modes", "service scope", s.getSafeModes)
	v1("POST", "/instances", "", s.postInstance, middleware.BodyLimit("1MiB"))
	v1("GET", "/live", "service at instances after instance", s.getLive)
	v1("GET", "/live/artifacts", "service dependency below image base", s.getArtifacts)
	v1("GET", "/flags", "target", s.getFlags)
	v1("GET", "/status", "", s.getStatus)

	e.GET("/log/*", s.getLog, s.authenticate, needLog)
	s.ociRoutes(e.Group("/v2", s.authenticate))
	s.ofrepRoutes(e)
	return e
}

// takes refuses query members that a route doesn't know: a misspelt filter would
// answer more than was asked for.
func takes(query string) echo.MiddlewareFunc {
	known, hint := strings.Fields(query), "this route takes none"
	if query != "" {
		hint = "known are " + strings.Join(known, ", ")
	}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			asked, err := url.ParseQuery(c.QueryString())
			if err != nil {
				return &api.Error{Code: api.CodeInvalid, Detail: "the query can't be read: " + err.Error(), Hint: "write name=value, with & between them"}
			}
			for _, name := range sortedKeys(asked) {
				if !slices.Contains(known, name) {
					return &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("query member %.40q is unknown here", name), Hint: hint}
				}
			}
			return next(c)
		}
	}
}

// answerTimeout bounds how long an ordinary answer may take to be read; waiting
// requests and streams set deadlines of their own as they write.
const answerTimeout = maxWait + 30*time.Second

func boundWrites(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		_ = http.NewResponseController(c.Response().Writer).SetWriteDeadline(time.Now().Add(answerTimeout))
		return next(c)
	}
}

func (s *Server) logPanic(c echo.Context, err error, stack []byte) error {
	s.log.ErrorContext(c.Request().Context(), "panic in a handler", slog.String("path", c.Path()), slog.Any("error", err), slog.String("stack", string(stack)))
	return err
}

// answerError is the one place that maps errors to answers: by route as RFC
// 9457, OCI errors or OFREP error codes.
func (s *Server) answerError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	err = ownError(err)
	if api.CodeOf(err) == api.CodeInternal {
		s.log.ErrorContext(c.Request().Context(), "request failed", slog.String("path", c.Request().URL.Path), slog.Any("error", err))
	}
	p := api.ProblemOf(err)
	path := c.Request().URL.Path
	switch {
	case p.Status == http.StatusUnauthorized:
		c.Response().Header().Set("WWW-Authenticate", challenge(path))
	case p.Status == http.StatusTooManyRequests, p.Status == http.StatusServiceUnavailable:
		if h := c.Response().Header(); h.Get("Retry-After") == "" {
			h.Set("Retry-After", "1")
		}
	}
	if c.Request().Method == http.MethodHead {
		_ = c.NoContent(p.Status)
		return
	}
	switch {
	case strings.HasPrefix(path, "/v2"):
		_ = c.JSON(p.Status, ociErrors(err, p, path))
	case strings.Contains(path, "/ofrep/v1/"):
		_ = c.JSONBlob(p.Status, ofrepError(err, p, c.Request().URL))
	default:
		c.Response().Header().Set(echo.HeaderContentType, "application/problem+json")
		_ = c.JSON(p.Status, p)
	}
}

func challenge(path string) string {
	if strings.HasPrefix(path, "/v2") {
		return `Basic realm="sealstone"`
	}
	return `Bearer realm="sealstone"`
}

// ownError turns the framework's errors into rows of our table.
func ownError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &api.Error{Code: api.CodeUnavailable, Detail: "the request ended before its answer"}
	}
	he, ok := errors.AsType[*echo.HTTPError](err)
	if !ok {
		return err
	}
	codes := map[int]api.Code{
		http.StatusNotFound: api.CodeNotFound, http.StatusMethodNotAllowed: api.CodeMethod, http.StatusRequestEntityTooLarge: api.CodeTooLarge,
		http.StatusUnsupportedMediaType: api.CodeUnsupported, http.StatusBadRequest: api.CodeInvalid, http.StatusUnauthorized: api.CodeUnauthorized,
	}
	code, ok := codes[he.Code]
	if !ok {
		return err
	}
	return &api.Error{Code: code, Detail: strings.ToLower(http.StatusText(he.Code)), Err: err}
}
