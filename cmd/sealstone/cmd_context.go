package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/sealstone/sealstone/internal/durable"
)

// contexts is a file of the user's: named sets of the common options, so that
// nobody types a URL at 3 a.m. Flags and environment win over it.
type contexts struct {
	Current  string                    `yaml:"current,omitempty" json:"current,omitempty"`
	Contexts map[string]*contextValues `yaml:"contexts" json:"contexts"`
}

// contextValues are the options of one context. They name files, never secrets.
type contextValues struct {
	Server    string `yaml:"server,omitempty" json:"server,omitempty"`
	Key       string `yaml:"key,omitempty" json:"key,omitempty"`
	TokenFile string `yaml:"token-file,omitempty" json:"token-file,omitempty"`
	Trust     string `yaml:"trust,omitempty" json:"trust,omitempty"`
}

func contextsPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "sealstone", "contexts.yaml"), nil
}

// loadContexts reads the file; none is an empty one.
func loadContexts() (*contexts, string, error) {
	c := &contexts{Contexts: map[string]*contextValues{}}
	path, err := contextsPath()
	if err != nil {
		return c, "", nil // no home directory: no contexts
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, path, nil
	}
	if err == nil {
		err = yaml.Unmarshal(b, c)
	}
	if err != nil {
		return nil, path, fmt.Errorf("contexts %s: %w", path, err)
	}
	return c, path, nil
}

// applyContext fills in the common options that neither flags nor environment
// gave; a flag that is given empty means none.
func (a *app) applyContext(given func(flag string) bool) error {
	c, path, err := loadContexts()
	if err != nil {
		return err
	}
	name := a.context
	if name == "" {
		name = c.Current
	}
	if name == "" {
		return nil
	}
	v := c.Contexts[name]
	if v == nil {
		return fmt.Errorf("no context %q in %s: make it with sealstone context set %s --server URL", name, path, name)
	}
	for _, o := range []struct {
		flag string
		to   *string
		from string
	}{{"server", &a.server, v.Server}, {"key", &a.key, v.Key}, {"token-file", &a.tokenFile, v.TokenFile}, {"trust", &a.trust, v.Trust}} {
		if *o.to == "" && !given(o.flag) {
			*o.to = o.from
		}
	}
	return nil
}

func newContext(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "context", Short: "Name servers, keys and trust files, to switch between them", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.listContexts() }}
	cmd.AddCommand(
		&cobra.Command{Use: "set NAME", Short: "Save the given --server, --key, --token-file and --trust under a name", Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return a.setContext(args[0]) }},
		&cobra.Command{Use: "use NAME", Short: "Make a context the current one", Args: cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error { return a.useContext(args[0]) }},
	)
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error { return nil } // a broken or missing context is mended here
	return cmd
}

func (a *app) listContexts() error {
	c, _, err := loadContexts()
	if err != nil {
		return err
	}
	return a.print(c, func(w io.Writer) {
		var rows [][]string
		for name, v := range c.Contexts {
			mark := ""
			if name == c.Current {
				mark = "current"
			}
			rows = append(rows, []string{name, dash(v.Server), dash(v.Key), dash(v.TokenFile), dash(v.Trust), mark})
		}
		slices.SortFunc(rows, slices.Compare)
		table(w, "NAME SERVER KEY TOKEN-FILE TRUST", rows)
	})
}

func (a *app) setContext(name string) error {
	c, path, err := loadContexts()
	if err != nil {
		return err
	}
	v := &contextValues{Server: a.server}
	for to, from := range map[*string]string{&v.Key: a.key, &v.TokenFile: a.tokenFile, &v.Trust: a.trust} {
		if from == "" {
			continue
		}
		if *to, err = filepath.Abs(from); err != nil { // it is used from any folder
			return err
		}
	}
	c.Contexts[name] = v
	if c.Current == "" {
		c.Current = name
	}
	fmt.Fprintf(a.err, "saved %s, what the environment gives included: server %s, key %s, token file %s, trust file %s\n", name, dash(v.Server), dash(v.Key), dash(v.TokenFile), dash(v.Trust))
	return c.save(path)
}

func (a *app) useContext(name string) error {
	c, path, err := loadContexts()
	if err != nil {
		return err
	}
	if c.Contexts[name] == nil {
		return fmt.Errorf("no context %q in %s", name, path)
	}
	c.Current = name
	fmt.Fprintf(a.err, "context %s: server %s, key %s, token file %s, trust file %s\n", name, dash(c.Contexts[name].Server), dash(c.Contexts[name].Key), dash(c.Contexts[name].TokenFile), dash(c.Contexts[name].Trust))
	return c.save(path)
}

func (c *contexts) save(path string) error {
	b, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	if path == "" {
		return errors.New("there is no home directory to keep contexts in")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, b, 0o600)
}
