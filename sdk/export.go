package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// Export is a fallback file: evidence that stands alone and every object that
// one target can need, safe modes too. A process that has nothing else starts
// from it, after the same checks that everything passes. It holds no secrets
// beyond the configuration itself, and no trust file: what vouches for bytes
// must not travel with them.
type Export struct {
	Version  int                   `json:"version"` // 1
	Target   api.Target            `json:"target"`
	Evidence *ledger.Evidence      `json:"evidence"`
	Objects  map[api.Digest][]byte `json:"objects"` // base64
}

const (
	exportVersion = 1
	maxExport     = 512 << 20
)

// Export writes what the client runs now as a fallback file for its target.
func (c *Client) Export(w io.Writer) error {
	c.mu.Lock()
	x := Export{Version: exportVersion, Target: c.target, Evidence: c.evidence, Objects: map[api.Digest][]byte{}}
	st, current := c.staged, c.exportable()
	c.mu.Unlock()
	if !current {
		return errors.New("export: the newest set is not staged; try again when the state is READY")
	}
	for d := range st.objects {
		b, ok := c.object(d)
		if !ok {
			return fmt.Errorf("export: object %s is gone from the cache", d)
		}
		x.Objects[d] = b
	}
	return json.NewEncoder(w).Encode(x)
}

// exportable tells whether the kept evidence is that of the staged set. c.mu is
// held.
func (c *Client) exportable() bool {
	return c.staged != nil && c.evidence != nil && c.evidenceSet == c.staged.main.Set.Digest
}

// loadFallback stages an export. It moves what is known only where nothing was:
// a fallback is as old as the image that it was baked into.
func (c *Client) loadFallback(ctx context.Context) error {
	info, err := os.Stat(c.cfg.Fallback)
	if err == nil && info.Size() > maxExport {
		err = fmt.Errorf("%d bytes, limit %d", info.Size(), maxExport)
	}
	if err != nil {
		return fmt.Errorf("fallback: %w", err)
	}
	raw, err := os.ReadFile(c.cfg.Fallback)
	if err != nil {
		return fmt.Errorf("fallback: %w", err)
	}
	var x Export
	if err := json.Unmarshal(raw, &x); err != nil {
		return fmt.Errorf("fallback %s: %w", c.cfg.Fallback, err)
	}
	if x.Version != exportVersion || x.Evidence == nil {
		return fmt.Errorf("fallback %s: not an export of version %d", c.cfg.Fallback, exportVersion)
	}
	c.mu.Lock()
	trust := c.trust
	c.mu.Unlock()
	if trust == nil {
		return fmt.Errorf("fallback %s: there is no trust file to verify it with", c.cfg.Fallback)
	}
	err = c.loadStored(ctx, trust, x.Evidence, func(d api.Digest) ([]byte, bool) { b, ok := x.Objects[d]; return b, ok })
	if err != nil {
		c.refuse(c.cfg.Fallback, err, nil)
		return fmt.Errorf("fallback %s: %w", c.cfg.Fallback, err)
	}
	return nil
}
