package main

import (
	"runtime/debug"
	"strings"
)

// version is the library's that this was built with.
func version(library string) string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == library {
			return strings.TrimPrefix(module.Version, "v")
		}
	}
	return ""
}
