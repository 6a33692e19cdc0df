package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
)

var versionCommand = command{
	name: "version", args: "[flags]", summary: "print the version",
	help: `Prints the version of this program and of the Go that built it.

Examples:
  llm-runner version
  llm-runner version --json

Exit codes: 0 printed, 2 wrong usage.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		asJSON := fs.Bool("json", false, "print JSON")
		return func(context.Context) error {
			if *asJSON {
				return c.printJSON(map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
			}
			_, err := fmt.Fprintf(c.stdout, "llm-runner %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		}
	},
}
