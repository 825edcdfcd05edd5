// Package examples carries whole config repositories inside the binary: the
// shop that `sealstone demo` plays with, and the starter that `sealstone init`
// writes. They are ordinary files here, so that they can be read, checked and
// built like any other repository.
package examples

import (
	"embed"
	"io/fs"
)

//go:embed all:shop all:starter
var files embed.FS

// Shop is the demo's repository: three services, two regions, a safe mode each.
func Shop() fs.FS { return sub("shop") }

// Starter is the smallest repository worth starting from: one service, one
// environment, one flag, one safe mode.
func Starter() fs.FS { return sub("starter") }

func sub(dir string) fs.FS {
	tree, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // the embed pattern above names the folder
	}
	return tree
}
