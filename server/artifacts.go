package server

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/instances"
)

const maxArtifacts = 1000 // of one answer

// getArtifacts answers who runs what: all of it, what has a dependency, or stands on an
// image. Instances that don't tell are counted as unknown, not as fine.
func (s *Server) getArtifacts(c echo.Context) error {
	service := c.QueryParam("service")
	if service != "" {
		if _, err := serviceParam(c); err != nil {
			return err
		}
	}
	fits, err := s.artifactQuery(c)
	if err != nil {
		return err
	}
	now, reads := time.Now(), who(c).reads
	out := api.Artifacts{Time: api.FormatTime(now), Found: []api.Artifact{}}
	found := map[api.Artifact]int{}
	facts := map[*instances.Facts]int{}
	s.live.Scan(service, func(r *instances.Row) {
		if s.live.Lease(r, now) != "gone" && reads(r.Facts.Target.Service) {
			facts[r.Facts]++
		}
	})
	for f, n := range facts {
		hits, known := fits(f)
		if !known {
			out.Unknown += n
		}
		for _, h := range hits {
			found[artifactOf(f, h)] += n
		}
	}
	for a, n := range found {
		a.Instances = n
		out.Found = append(out.Found, a)
	}
	slices.SortFunc(out.Found, compareArtifacts)
	if n := len(out.Found) - maxArtifacts; n > 0 {
		out.Found, out.Omitted = out.Found[:maxArtifacts], n
	}
	return c.JSON(http.StatusOK, out)
}

func artifactOf(f *instances.Facts, h instances.Hit) api.Artifact {
	return api.Artifact{Target: f.Target, Version: f.Version, Revision: f.Revision, Digest: f.Artifact, Image: f.Image, BaseImage: f.BaseImage, SBOM: f.SBOM,
		Dependency: h.URL, Unordered: h.Unordered}
}

func compareArtifacts(a, b api.Artifact) int {
	return cmp.Or(cmp.Compare(a.Target.Service, b.Target.Service), cmp.Compare(a.Target.Scope, b.Target.Scope), cmp.Compare(a.Dependency, b.Dependency), cmp.Compare(a.Version, b.Version),
		cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.Image, b.Image), cmp.Compare(a.BaseImage, b.BaseImage), cmp.Compare(a.SBOM, b.SBOM))
}

// artifactQuery reads what is asked for: one of dependency, image and base, or
// nothing, for everything that runs. The function tells why facts fit, once for each hit, and whether they
// say anything about it.
func (s *Server) artifactQuery(c echo.Context) (fits func(*instances.Facts) (hits []instances.Hit, known bool), err error) {
	dependency, below, image, base := c.QueryParam("dependency"), c.QueryParam("below"), c.QueryParam("image"), c.QueryParam("base")
	asked := 0
	for _, v := range []string{dependency, image, base} {
		if v != "" {
			asked++
		}
	}
	switch {
	case asked > 1 || below != "" && dependency == "":
		return nil, &api.Error{Code: api.CodeInvalid, Detail: "ask for one of dependency, image and base", Hint: "?dependency=golang.org/x/net&below=v0.40.0, or ?base=sha256:..."}
	case asked == 0:
		return func(*instances.Facts) ([]instances.Hit, bool) { return []instances.Hit{{}}, true }, nil
	case below != "" && !instances.ValidVersion(below):
		return nil, &api.Error{Code: api.CodeInvalid, Detail: "query member below: this is no semantic version", Hint: "write one such as v0.40.0"}
	case dependency != "":
		hits, known := s.live.Dependency(dependency, below)
		return func(f *instances.Facts) ([]instances.Hit, bool) { return hits[f.Deps], known[f.Deps] }, nil
	case image != "":
		return byDigest(image, func(f *instances.Facts) string { return f.Image })
	}
	return byDigest(base, func(f *instances.Facts) string { return f.BaseImage })
}

func byDigest(want string, of func(*instances.Facts) string) (func(*instances.Facts) ([]instances.Hit, bool), error) {
	if _, err := api.ParseDigest(want); err != nil {
		return nil, &api.Error{Code: api.CodeInvalid, Detail: err.Error(), Hint: "write the whole digest"}
	}
	return func(f *instances.Facts) ([]instances.Hit, bool) {
		if of(f) == want {
			return []instances.Hit{{}}, true
		}
		return nil, of(f) != ""
	}, nil
}
