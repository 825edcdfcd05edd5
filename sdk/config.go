package sdk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
)

// Config says who the process is, whom it believes and where it looks. Target,
// and a trust file or TrustOnFirstUse, are required; everything else has a
// usable zero value.
type Config struct {
	Target string // what the process is: service@scope, such as checkout@prod/eu-west-1/canary

	// Servers are base URLs of servers or relays, best first. The next one is
	// asked after 300 ms, or at once when one fails. None of them is trusted:
	// what they say is verified. Without any, the process lives on cache,
	// fallback and override directory.
	Servers []string

	Trust           string // path of the trust file
	TrustData       []byte // or its bytes
	TrustOnFirstUse bool   // take the first trust file a server shows; Live says so for ever

	Token     string // for the servers; empty sends none
	TokenFile string // or a file that holds it, read before each request

	Cache       string // folder of the cache; empty keeps nothing across restarts
	Fallback    string // path of an export, used when servers and cache have nothing
	OverrideDir string // folder watched for safe-mode statements (*.dsse, *.dsse.json)

	Instance Instance // what the process reports about itself

	StartWait   time.Duration // how long Open waits for a fresh head before it takes the cache; 0 is 1 s
	Poll        time.Duration // how often servers are asked without being notified; 0 is 30 s
	ReportEvery time.Duration // heartbeat of instance reports, ±20 %; 0 is 15 s, negative sends none

	HTTPClient *http.Client // transport and its settings; nil is one of our own. Its redirect policy and timeout are replaced
	Logger     *slog.Logger // nil is slog.Default()
}

// Instance is what a process says of itself in its reports. What is empty is
// filled in where the process can know it, and else reported as unknown.
type Instance struct {
	ID        string // empty is a random one, new at every start
	Version   string // empty is the main module's version
	Revision  string // empty is vcs.revision of the build
	Artifact  string // sha256:... ; empty is the digest of the executable
	Image     string // digest of the image's OCI manifest
	BaseImage string // digest of the image's base
	SBOM      string // digest of the SBOM that belongs to the artifact
}

// Times and bounds that are no business of a Config.
const (
	hedgeAfter    = 300 * time.Millisecond // before the next server is asked as well
	fullEvery     = 10 * time.Minute       // evidence that stands alone is asked for and kept this often
	retryMin      = 500 * time.Millisecond
	retryMax      = 30 * time.Second
	overrideEvery = time.Second // between looks into the override directory
	ageEvery      = 5 * time.Second
	afterInit     = 100 * time.Millisecond // for the OpenFeature SDK to say READY before we say otherwise
	watchIdle     = 45 * time.Second
	watchRetry    = 5 * time.Second // at most about this long after an outage a stream is tried again
	askTimeout    = 10 * time.Second
	objectTimeout = 30 * time.Second
	minGap        = 10 * time.Millisecond // between two rounds, whatever servers announce
)

func (c *Config) validate() (api.Target, error) {
	target, err := api.ParseTarget(c.Target)
	errs := []error{err}
	for _, s := range c.Servers {
		u, err := url.Parse(s)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.User != nil {
			errs = append(errs, fmt.Errorf("server %q: write its base URL, such as https://config.example.com", s))
		}
	}
	if c.Trust != "" && c.TrustData != nil {
		errs = append(errs, errors.New("both Trust and TrustData are set: give one"))
	}
	if c.Trust == "" && c.TrustData == nil && !c.TrustOnFirstUse {
		errs = append(errs, errors.New("no trust file: set Trust or TrustData (sealstone trust prints it), or ask for TrustOnFirstUse"))
	}
	if c.Token != "" && c.TokenFile != "" {
		errs = append(errs, errors.New("both Token and TokenFile are set: give one"))
	}
	if len(c.Servers) == 0 && c.Cache == "" && c.Fallback == "" {
		errs = append(errs, errors.New("no Servers, Cache or Fallback: there is nowhere to get a bundle from"))
	}
	for name, d := range map[string]string{"Artifact": c.Instance.Artifact, "Image": c.Instance.Image, "BaseImage": c.Instance.BaseImage, "SBOM": c.Instance.SBOM} {
		if d != "" && !api.Digest(d).Valid() {
			errs = append(errs, fmt.Errorf("field Instance.%s: %w", name, api.ErrDigest))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return target, fmt.Errorf("sdk config: %w", err)
	}
	return target, nil
}

// withDefaults fills in what zero stands for.
func (c Config) withDefaults() Config {
	setDefault(&c.StartWait, time.Second)
	setDefault(&c.Poll, 30*time.Second)
	setDefault(&c.ReportEvery, 15*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Instance.ID == "" {
		c.Instance.ID = strings.ToLower(rand.Text())
	}
	return c
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to
	}
}

// trustBytes returns the trust file that the process was given, nil for none.
func (c *Config) trustBytes() ([]byte, error) {
	if c.Trust == "" {
		return c.TrustData, nil
	}
	b, err := os.ReadFile(c.Trust)
	if err != nil {
		return nil, fmt.Errorf("trust file: %w", err)
	}
	return b, nil
}

// token reads the token anew, so that a rotated file needs no restart.
func (c *Config) token() (string, error) {
	if c.TokenFile == "" {
		return c.Token, nil
	}
	b, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("token file %s is empty", c.TokenFile) // somebody is writing it: better late than as nobody
	}
	return token, nil
}
