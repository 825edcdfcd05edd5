package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
)

// principal is who asks: a client of clients.yaml, or everybody.
type principal struct {
	name     string
	services []string // "*" is all
	scopes   []api.Scope
	log      bool
}

var everybody = &principal{name: "anonymous", services: []string{"*"}, log: true}

// reads tells whether the principal may read a service.
func (p *principal) reads(service string) bool {
	return slices.Contains(p.services, "*") || slices.Contains(p.services, service)
}

// readsTarget tells whether the principal may act for a target.
func (p *principal) readsTarget(t api.Target) bool {
	return p.reads(t.Service) && (p == everybody || slices.ContainsFunc(p.scopes, func(s api.Scope) bool { return s == "*" || s.Contains(t.Scope) }))
}

// access maps tokens to principals. The map is replaced whole when the accepted
// tip changes clients.yaml.
type access struct {
	open    bool // reads without a token are let through
	public  bool // others than this machine can connect: without clients.yaml nobody may read
	clients atomic.Pointer[map[api.Digest]*principal]
}

// set replaces the clients; ok is false when the repository has no clients.yaml.
func (a *access) set(clients []bundler.Client, ok bool) {
	if !ok && (a.open || !a.public) {
		a.clients.Store(nil)
		return
	}
	m := make(map[api.Digest]*principal, len(clients))
	for _, c := range clients {
		m[api.Digest(c.Token)] = &principal{c.Name, c.Services, c.Scopes, c.Log}
	}
	a.clients.Store(&m)
}

// identify finds the principal of a request. A wrong token is refused even
// where none is needed: its owner believes to be somebody.
func (a *access) identify(r *http.Request) (*principal, error) {
	token := tokenOf(r)
	clients := a.clients.Load()
	if clients == nil && (token == "" || !a.open) {
		return everybody, nil // loopback, or --open-reads: see cmd
	}
	if token == "" {
		if a.open {
			return everybody, nil
		}
		return nil, &api.Error{Code: api.CodeUnauthorized, Detail: "a token is needed", Hint: "send Authorization: Bearer TOKEN; clients.yaml of the repository lists who has one"}
	}
	if clients != nil {
		if p := (*clients)[api.DigestOf([]byte(token))]; p != nil {
			return p, nil
		}
	}
	return nil, &api.Error{Code: api.CodeUnauthorized, Detail: "unknown token", Hint: "its sha256 is not in clients.yaml of the accepted tip"}
}

// still reports whether the client of a long request may go on: it may have
// lost its token, or what the request is about, since it was let in.
func (a *access) still(p *principal, may func(*principal) bool) bool {
	if p == everybody {
		return a.clients.Load() == nil || a.open
	}
	now := a.named(p.name)
	return now != nil && may(now)
}

// named finds a client that was identified before; "" is everybody. Nil when it
// may not read any more.
func (a *access) named(name string) *principal {
	clients := a.clients.Load()
	if clients == nil || name == "" && a.open {
		return everybody
	}
	for _, p := range *clients {
		if p.name == name && name != "" {
			return p
		}
	}
	return nil
}

// tokenOf finds a token where the protocols put it: Bearer, X-API-Key (OFREP),
// or the password of Basic (OCI).
func tokenOf(r *http.Request) string {
	auth := r.Header.Get("Authorization")
	if t, ok := cutFold(auth, "Bearer "); ok {
		return t
	}
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	return r.Header.Get("X-Api-Key")
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return strings.TrimSpace(s[len(prefix):]), true
	}
	return "", false
}

const principalKey = "principal"

// authenticate puts the principal into the request's context.
func (s *Server) authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, err := s.access.identify(c.Request())
		if err != nil {
			return err
		}
		c.Set(principalKey, p)
		return next(c)
	}
}

func who(c echo.Context) *principal { return c.Get(principalKey).(*principal) }

// needLog lets only those read the whole log who are its audience.
func needLog(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if !who(c).log {
			return &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not read the log", who(c).name), Hint: "set log: true in clients.yaml"}
		}
		return next(c)
	}
}

// serviceParam reads and authorises the service a request is about.
func serviceParam(c echo.Context) (string, error) {
	service := c.QueryParam("service")
	if err := api.CheckName(service); err != nil {
		return "", &api.Error{Code: api.CodeInvalid, Detail: "query member service: " + err.Error(), Hint: "write ?service=NAME"}
	}
	return service, mayRead(c, service)
}

func mayRead(c echo.Context, service string) error {
	if !who(c).reads(service) {
		return &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not read service %q", who(c).name, service), Hint: "list it under services in clients.yaml"}
	}
	return nil
}
