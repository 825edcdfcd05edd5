package server

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// getLog serves the log as C2SP tlog-tiles, and one proof file per entry.
func (s *Server) getLog(c echo.Context) error {
	body, contentType, immutable, err := s.store.LogFile(c.Param("*"))
	if err != nil {
		c.Response().Header().Set("Cache-Control", "no-store")
		return err
	}
	cache := "no-cache"
	if immutable {
		cache = forEver(c)
	}
	c.Response().Header().Set("Cache-Control", cache)
	return c.Blob(http.StatusOK, contentType, body)
}
