package sdk

import "github.com/sealstone/sealstone/api"

// Running is what serves reads at one moment. It can be compared.
type Running struct {
	Bundle api.Digest
	Set    api.Digest
	Mode   api.Mode
	Index  int64 // of the change that put the bundle into effect; -1 for a pending statement
}

// Running tells what runs, cheaply enough to ask for every request; see
// [Client.Live] for what proves it.
func (c *Client) Running() Running {
	v := c.view.Load()
	return Running{Bundle: v.bundle, Set: v.staged.main.Set.Digest, Mode: v.mode, Index: v.index()}
}

// Identity is what reports say of this process and what doesn't change in its
// life. It reads the executable: ask once.
func (c *Client) Identity() api.Instance {
	me, _ := c.identity()
	return me
}
