package server

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/ledger"
)

// ociRoutes serve what activations name, for any OCI client. A repository is a
// service; tags are scopes, with "_<mode>" for a safe mode.
func (s *Server) ociRoutes(g *echo.Group) {
	get := []string{http.MethodGet, http.MethodHead}
	base := func(c echo.Context) error {
		c.Response().Header().Set("Docker-Distribution-API-Version", "registry/2.0")
		return c.JSONBlob(http.StatusOK, []byte("{}"))
	}
	g.Match(get, "", base)
	g.Match(get, "/", base)
	g.GET("/:service/tags/list", s.ociTags)
	g.Match(get, "/:service/manifests/:ref", s.ociManifest)
	g.Match(get, "/:service/blobs/:digest", s.ociBlob)
}

func ociService(c echo.Context) (string, error) {
	service := c.Param("service")
	if err := api.CheckName(service); err != nil {
		return "", &api.Error{Code: api.CodeInvalid, Detail: err.Error()}
	}
	return service, mayRead(c, service)
}

// tags lists the names that a service's repository has now: one for each scope
// and mode.
func (s *Server) tags(service string) ([]string, error) {
	chains := s.store.Snapshot().State.ServiceChains(service)
	seen := map[string]bool{}
	for _, c := range chains {
		if c.Lane != ledger.LaneMain || c.Kind != ledger.BundleActivated {
			continue
		}
		set, err := s.programs.set(c.Set.Digest)
		if err != nil {
			return nil, err
		}
		for _, e := range set.Entries {
			if main, ok := ledger.InEffect(chains, e.Scope); ok && main.Main.Scope == c.Scope {
				seen[e.Scope.Tag(e.Mode)] = true
			}
		}
	}
	return sortedKeys(seen), nil
}

func (s *Server) ociTags(c echo.Context) error {
	service, err := ociService(c)
	if err != nil {
		return err
	}
	names, err := s.tags(service)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return &api.Error{Code: api.CodeNotFound, Detail: "no repository " + service}
	}
	if last := c.QueryParam("last"); last != "" {
		names = slices.DeleteFunc(names, func(n string) bool { return n <= last })
	}
	if n, err := strconv.Atoi(c.QueryParam("n")); err == nil && n >= 0 && n < len(names) {
		names = names[:n]
		if n > 0 {
			c.Response().Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?n=%d&last=%s>; rel="next"`, service, n, names[n-1]))
		}
	}
	return c.JSON(http.StatusOK, map[string]any{"name": service, "tags": names})
}

// ociManifest serves a bundle by tag, or a bundle or set by digest. Tags win
// nothing over digests: a tag is looked up in the newest state.
func (s *Server) ociManifest(c echo.Context) error {
	service, err := ociService(c)
	if err != nil {
		return err
	}
	ref := api.Digest(c.Param("ref"))
	if !ref.Valid() {
		if ref, err = s.tagged(service, c.Param("ref")); err != nil {
			return err
		}
	}
	b, err := s.named(service, ref)
	if err != nil {
		return err
	}
	return serveObject(c, ref, manifestType(b), b)
}

func manifestType(b []byte) string {
	if _, err := bundle.ParseSet(b); err == nil {
		return bundle.TypeIndex
	}
	return bundle.TypeManifest
}

func (s *Server) tagged(service, name string) (api.Digest, error) {
	if scope, mode, err := api.ParseTag(name); err == nil {
		e, ok := ledger.InEffect(s.store.Snapshot().State.ServiceChains(service), scope)
		if ok && e.Main.Set != nil {
			set, err := s.programs.set(e.Main.Set.Digest)
			if err != nil {
				return "", err
			}
			if entry, ok := set.Find(scope, mode); ok {
				return entry.Digest, nil
			}
		}
	}
	return "", &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("no tag %.128q in %s", name, service)}
}

func (s *Server) ociBlob(c echo.Context) error {
	service, err := ociService(c)
	if err != nil {
		return err
	}
	d := api.Digest(c.Param("digest"))
	if !d.Valid() {
		return &api.Error{Code: api.CodeInvalid, Detail: api.ErrDigest.Error()}
	}
	b, err := s.named(service, d)
	if err != nil {
		return err
	}
	return serveObject(c, d, "application/octet-stream", b)
}

// named returns an object that an activation of the service named, now or ever.
func (s *Server) named(service string, d api.Digest) ([]byte, error) {
	row, err := s.store.Row(namedRow(service, d))
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("no activation of %s names %s", service, d)}
	}
	return s.programs.object(d)
}

// forEver lets an answer be kept that never changes: by its reader alone where
// others need a token for it.
func forEver(c echo.Context) string {
	if who(c) == everybody {
		return "public, max-age=31536000, immutable"
	}
	return "private, max-age=31536000, immutable"
}

func serveObject(c echo.Context, d api.Digest, mediaType string, b []byte) error {
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, mediaType)
	h.Set("Docker-Content-Digest", string(d))
	h.Set("ETag", `"`+string(d)+`"`)
	h.Set("Cache-Control", forEver(c))
	if !api.Digest(c.Param("ref")).Valid() && c.Param("ref") != "" {
		h.Set("Cache-Control", "no-cache") // a tag moves
	}
	http.ServeContent(c.Response(), c.Request(), "", time.Time{}, bytes.NewReader(b))
	return nil
}

// ociErrors is the error answer of the distribution specification.
func ociErrors(err error, p api.Problem, path string) map[string]any {
	codes := map[api.Code]string{
		api.CodeNotFound: "MANIFEST_UNKNOWN", api.CodeGone: "MANIFEST_UNKNOWN", api.CodeInvalid: "DIGEST_INVALID", api.CodeUnauthorized: "UNAUTHORIZED",
		api.CodeForbidden: "DENIED", api.CodeMethod: "UNSUPPORTED", api.CodeTooMany: "TOOMANYREQUESTS",
	}
	code, ok := codes[api.CodeOf(err)]
	switch {
	case !ok:
		code = "UNKNOWN"
	case code == "MANIFEST_UNKNOWN" && strings.Contains(path, "/blobs/"):
		code = "BLOB_UNKNOWN"
	case code == "MANIFEST_UNKNOWN" && strings.HasSuffix(path, "/tags/list"):
		code = "NAME_UNKNOWN"
	}
	return map[string]any{"errors": []map[string]any{{"code": code, "message": p.Detail, "detail": p.Hint}}}
}
