package server

import (
	"math"
	"net"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/sealstone/sealstone/api"
)

// newLimiter lets each client make a number of OFREP evaluations a second, and as
// many at once; nil for 0, which is no limit.
func newLimiter(rate float64) *middleware.RateLimiterMemoryStore {
	if rate <= 0 {
		return nil
	}
	cfg := middleware.RateLimiterMemoryStoreConfig{Burst: int(math.Ceil(rate)), ExpiresIn: 3 * time.Minute}
	setFloat(&cfg.Rate, rate)
	return middleware.NewRateLimiterMemoryStoreWithConfig(cfg)
}

// setFloat sets a field whose type is a float of a package that only the
// framework imports.
func setFloat[T ~float64](field *T, v float64) { *field = T(v) }

// limit refuses what goes beyond the rate of a token, or of an address where
// none is needed. Headers that name another address are not believed.
func (s *Server) limit(next echo.HandlerFunc) echo.HandlerFunc {
	if s.limiter == nil {
		return next
	}
	return func(c echo.Context) error {
		id := "client " + who(c).name
		if who(c) == everybody {
			host, _, err := net.SplitHostPort(c.Request().RemoteAddr)
			if err != nil {
				host = c.Request().RemoteAddr
			}
			id = "address " + host
		}
		if ok, err := s.limiter.Allow(id); err != nil || !ok {
			c.Response().Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(1/s.cfg.OFREPRate)))) // seconds: clients misread dates
			return &api.Error{Code: api.CodeTooMany, Detail: "too many evaluations", Hint: "wait as long as Retry-After says", Err: err}
		}
		return next(c)
	}
}
