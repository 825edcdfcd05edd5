package main

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version and what it was built from", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		info := buildInfo()
		return a.print(info, func(w io.Writer) {
			fmt.Fprintf(w, "sealstone %s\n", info["version"])
			table(w, "", [][]string{{"revision", dash(info["revision"])}, {"go", info["go"]}})
		})
	}}
}

// release is set by the release build with -ldflags -X.
var release string

func version() string { return buildInfo()["version"] }

func buildInfo() map[string]string {
	out := map[string]string{"version": "devel"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return out
	}
	out["go"] = info.GoVersion
	if v := info.Main.Version; v != "" && v != "(devel)" {
		out["version"] = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			out["revision"] = s.Value
		case "vcs.modified":
			out["modified"] = s.Value
		}
	}
	if release != "" {
		out["version"] = release
	}
	return out
}
