package main

import "runtime/debug"

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
