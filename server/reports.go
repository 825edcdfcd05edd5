package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
)

// Pauses of the loop that keeps the table of instances.
const (
	flushEvery = 10 * time.Second
	pruneEvery = 360 // flushes: an hour
)

// postInstance takes a report. It is bound to what the token may read, and
// stays an observation: labelled reported, beside what is proven.
func (s *Server) postInstance(c echo.Context) error {
	if kind, _, _ := mime.ParseMediaType(c.Request().Header.Get(echo.HeaderContentType)); kind != echo.MIMEApplicationJSON { // pages of strangers can't send that to a server without tokens
		return &api.Error{Code: api.CodeUnsupported, Detail: "a report is JSON", Hint: "send it with Content-Type: application/json"}
	}
	body, err := io.ReadAll(c.Request().Body)
	if err != nil {
		return err
	}
	var in api.Instance
	if err := json.Unmarshal(body, &in); err != nil {
		return &api.Error{Code: api.CodeInvalid, Detail: "instance report: " + err.Error(), Hint: "docs/formats.md shows one"}
	}
	if !who(c).readsTarget(in.Target) {
		return &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not report for %s", who(c).name, in.Target)}
	}
	want, err := s.live.Put(&in, who(c).name, time.Now())
	if err != nil {
		return err
	}
	if want {
		return c.JSON(http.StatusOK, api.ReportAnswer{Want: []string{api.WantDependencies}})
	}
	return c.NoContent(http.StatusNoContent)
}

// leaseLoop forgets instances and saves what is known of them.
func (s *Server) leaseLoop(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	said := ""
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			s.saveInstances(time.Now(), &said)
			return
		case now := <-tick.C:
			s.live.Forget(now)
			s.saveInstances(now, &said)
			if n%pruneEvery == 0 {
				if err := s.live.Prune(now); err != nil {
					s.log.Warn("old intervals of instances can't be dropped", slog.Any("error", err))
				}
			}
		}
	}
}

// saveInstances says once when it begins to fail: what is lost then is known
// until the next start only.
func (s *Server) saveInstances(now time.Time, said *string) {
	err := s.live.Flush(now)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != *said && err != nil {
		s.log.Warn("what instances report can't be saved", slog.Any("error", err))
	}
	*said = text
}
