package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// maxWait is how long a head request may wait for its chains to change.
const maxWait = 60 * time.Second

// getHead answers a head issued now. With wait it answers when the chain lines
// differ from the If-None-Match tag, or when time is up.
func (s *Server) getHead(c echo.Context) error {
	service, err := s.knownService(c)
	if err != nil {
		return err
	}
	wait, err := waitParam(c)
	if err != nil {
		return err
	}
	if tag := c.Request().Header.Get("If-None-Match"); tag != "" && wait > 0 {
		s.waitForChange(c.Request().Context(), service, tag, wait)
	}
	note, head, err := s.store.Head(service, time.Now())
	if err != nil {
		return err
	}
	tag := headTag(head.ChainLines())
	h := c.Response().Header()
	h.Set("ETag", tag)
	h.Set("Cache-Control", "no-cache")
	if wait == 0 && c.Request().Header.Get("If-None-Match") == tag {
		return c.NoContent(http.StatusNotModified)
	}
	return c.Blob(http.StatusOK, "text/plain; charset=utf-8", note)
}

func headTag(lines string) string { return `"` + api.DigestOf([]byte(lines)).Hex()[:32] + `"` }

func waitParam(c echo.Context) (time.Duration, error) {
	v := c.QueryParam("wait")
	if v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || time.Duration(n)*time.Second > maxWait {
		return 0, &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("query member wait: %.16q", v), Hint: "write whole seconds, 0 to 60"}
	}
	return time.Duration(n) * time.Second, nil
}

// waitForChange returns when the service's chain lines no longer have the tag.
func (s *Server) waitForChange(ctx context.Context, service, tag string, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		changed := s.store.Changed()
		head := ledger.Head{Lines: s.store.Snapshot().State.HeadLines(service)}
		if headTag(head.ChainLines()) != tag {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// knownService reads the service of a request and makes sure that it has ever
// been activated.
func (s *Server) knownService(c echo.Context) (string, error) {
	service, err := serviceParam(c)
	if err != nil {
		return "", err
	}
	if len(s.store.Snapshot().State.HeadLines(service)) == 0 {
		return "", notActivated(service)
	}
	return service, nil
}

func notActivated(what string) error {
	return &api.Error{Code: api.CodeNotActivated, Detail: fmt.Sprintf("nothing is activated for %s", what),
		Hint: "add an entry to activations/ and see sealstone check; /v1/status says what was rejected"}
}

// getEvidence answers what is needed to believe the newest head.
func (s *Server) getEvidence(c echo.Context) error {
	service, err := s.knownService(c)
	if err != nil {
		return err
	}
	from, err := indexParam(c, "from")
	if err != nil {
		return err
	}
	have, err := indexList("have", c.QueryParam("have"))
	if err != nil {
		return err
	}
	e, err := s.store.Evidence(service, from, have, c.QueryParam("detail") != "0", time.Now())
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-cache")
	return c.JSON(http.StatusOK, e)
}

func indexParam(c echo.Context, name string) (int64, error) {
	v := c.QueryParam(name)
	if v == "" {
		return 0, nil
	}
	return parseIndex(name, v)
}

func parseIndex(name, v string) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != v {
		return 0, &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("%s: %.32q is not an index", name, v), Hint: "write a whole number from 0"}
	}
	return n, nil
}

func indexList(name, v string) ([]int64, error) {
	if v == "" {
		return nil, nil
	}
	parts := strings.Split(v, ",")
	if len(parts) > api.MaxIndexes {
		return nil, &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("%s: %d indexes, limit %d", name, len(parts), api.MaxIndexes)}
	}
	out := make([]int64, 0, len(parts))
	for _, p := range parts {
		n, err := parseIndex(name, p)
		if err == nil && slices.Contains(out, n) {
			err = &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("%s: %d is there twice", name, n), Hint: "name each index once"}
		}
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

func (s *Server) getTrust(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/jsonl", s.store.Trusted().File())
}
