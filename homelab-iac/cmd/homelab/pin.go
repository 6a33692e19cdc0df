package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/registry"
)

var pinCommands = []command{{
	name: "pin", args: "DIR [flags]", summary: "write the digests of images into the compose files of DIR",
	help: `Asks each image's registry which digest its tag has now and writes it behind the tag, so that what runs is what was tried. Images that have a
digest are left alone; with --check they are compared instead, and nothing is written: a tag that was moved is told. The list DIR/unpinned.txt is
written anew.

Examples:
  homelab pin homelab-iac/services
  homelab pin homelab-iac/services --check

Exit codes: 0 done (with --check: every tag is what it was), 1 a registry did not answer, or a tag was moved, 2 wrong usage.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		check := fs.Bool("check", false, "compare, write nothing")
		plain := fs.Bool("plain-http", false, "the registries speak HTTP without TLS: for a registry of one's own")
		return func(ctx context.Context) error {
			if len(c.args) != 1 {
				return usageError{"name the folder of services"}
			}
			client := registry.Client{}
			if *plain {
				client.Scheme = "http"
			}
			return c.pin(ctx, c.args[0], *check, client)
		}
	},
}}

// imageLine is the image of a container in our compose files: one a line, with nothing behind it but a comment.
var imageLine = regexp.MustCompile(`(?m)^(\s+image:\s+)([^\s#]+)`)

func (c *call) pin(ctx context.Context, dir string, check bool, client registry.Client) error {
	files, err := filepath.Glob(filepath.Join(dir, "*", "compose.yaml"))
	if err != nil || len(files) == 0 {
		return usageError{dir + " has no folder with a compose.yaml"}
	}
	var wrong error
	var unpinned []string
	asked := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fresh := imageLine.ReplaceAllStringFunc(string(text), func(line string) string {
			m := imageLine.FindStringSubmatch(line)
			name, tag, digest := catalog.SplitImage(m[2])
			if digest != "" && !check {
				return line
			}
			now, ok := asked[name+":"+tag]
			if !ok {
				var err error
				if now, err = client.Digest(ctx, name, tag); err != nil {
					wrong = errors.Join(wrong, err)
				}
				asked[name+":"+tag] = now
			}
			switch {
			case now == "" && digest == "":
				unpinned = append(unpinned, m[2])
			case check && now != "" && now != digest:
				wrong = errors.Join(wrong, fmt.Errorf("%s: the tag %s:%s is %s now", file, name, tag, now))
			case now != "" && !check:
				return m[1] + name + ":" + tag + "@" + now
			}
			return line
		})
		if !check && fresh != string(text) {
			if err := backup.WriteFile(file, []byte(fresh), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(c.stdout, "pinned %s\n", file)
		}
	}
	if !check {
		slices.Sort(unpinned)
		list := unpinnedHead + strings.Join(append(slices.Compact(unpinned), ""), "\n")
		if err := backup.WriteFile(filepath.Join(dir, "unpinned.txt"), []byte(list), 0o644); err != nil {
			return err
		}
	}
	return wrong
}

const unpinnedHead = `# Images that are named by version only. A digest comes from a registry (homelab pin asks for it) and is never made up;
# the registries could not be reached where these versions were written down. homelab pin takes an image off this list.
`
