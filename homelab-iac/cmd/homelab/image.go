package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/image"
	"home.arpa/lab/homelab-iac/internal/registry"
)

var imageCommands = []command{
	{
		name: "image build", args: "DIR [flags]", summary: "make a container image of static programs, without Docker",
		help: `Reads DIR/Dockerfile (or --dockerfile), which may say no more than an image from scratch needs, takes the files from DIR, and makes one image for all
platforms. The same files are the same digest, wherever it is made: times are SOURCE_DATE_EPOCH's, or 1970. With --push it is written to the registry
under its digest and each --tag; user and password are CI_REGISTRY_USER and CI_REGISTRY_PASSWORD. With --out it is written as an OCI layout. The last
line is NAME@sha256:..., or the digest.

Examples:
  homelab image build dist --dockerfile llm-runner/Dockerfile --out dist/oci
  homelab image build dist --dockerfile llm-runner/Dockerfile --push registry.gitlab.com/example/homelab/llm-runner --tag main

Exit codes: 0 done, 1 failed, 2 the command line is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			var w imageCall
			fs.StringVar(&w.dockerfile, "dockerfile", "", "`FILE` (default: DIR/Dockerfile)")
			fs.StringVar(&w.platforms, "platforms", "linux/amd64,linux/arm64", "`LIST` of platforms")
			fs.StringVar(&w.args, "args", "", "values of ARGs, as `NAME=VALUE` with commas")
			fs.StringVar(&w.out, "out", "", "`DIR` for an OCI layout")
			fs.StringVar(&w.push, "push", "", "`NAME` of the image in its registry")
			fs.StringVar(&w.tags, "tag", "", "`TAGS` to push it under, with commas")
			fs.BoolVar(&w.plain, "plain-http", false, "the registry speaks HTTP without TLS: for a registry of one's own")
			return func(ctx context.Context) error { return c.imageBuild(ctx, w) }
		},
	},
	{
		name: "image tag", args: "NAME@DIGEST TAG [flags]", summary: "give an image in a registry another tag",
		help: `The pipeline gives the tag "deployed" to what has proved healthy, so that a machine that is built anew begins with it.

Example:
  homelab image tag registry.gitlab.com/example/homelab/llm-runner@sha256:... deployed

Exit codes: 0 done, 1 failed, 2 the command line is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			plain := fs.Bool("plain-http", false, "the registry speaks HTTP without TLS: for a registry of one's own")
			return func(ctx context.Context) error { return c.imageTag(ctx, *plain) }
		},
	},
	{
		name: "image sbom", args: "PROGRAM [flags]", summary: "list what is in a Go program, as CycloneDX JSON",
		help: `Reads the modules and the Go version out of the program itself. The same program has the same list.

Example:
  homelab image sbom dist/llm-runner-linux-amd64 --version 1.2.0 >llm-runner.cdx.json

Exit codes: 0 printed, 1 it is no Go program, or cannot be read, 2 the command line is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			version := fs.String("version", "", "the program's own `VERSION`")
			return func(context.Context) error {
				if len(c.args) != 1 {
					return usageError{"name one program"}
				}
				text, err := image.SBOM(c.args[0], *version)
				if err != nil {
					return err
				}
				fmt.Fprintf(c.stdout, "%s\n", text)
				return nil
			}
		},
	},
}

type imageCall struct {
	dockerfile, platforms, args, out, push, tags string
	plain                                        bool
}

func registryClient(plain bool) registry.Client {
	client := registry.Client{User: os.Getenv("CI_REGISTRY_USER"), Password: os.Getenv("CI_REGISTRY_PASSWORD")}
	if plain {
		client.Scheme = "http"
	}
	return client
}

func (c *call) imageBuild(ctx context.Context, w imageCall) error {
	if len(c.args) != 1 {
		return usageError{"name one folder"}
	}
	dir := c.args[0]
	if w.dockerfile == "" {
		w.dockerfile = filepath.Join(dir, "Dockerfile")
	}
	text, err := os.ReadFile(w.dockerfile)
	if err != nil {
		return usageError{err.Error()}
	}
	platforms, err := image.ParsePlatforms(w.platforms)
	if err != nil {
		return usageError{err.Error()}
	}
	args := map[string]string{}
	for pair := range strings.SplitSeq(w.args, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if pair != "" && !ok {
			return usageError{fmt.Sprintf("--args %q: write NAME=VALUE", pair)}
		}
		args[name] = value
	}
	made := time.Unix(0, 0)
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return usageError{fmt.Sprintf("SOURCE_DATE_EPOCH=%q is no number of seconds", epoch)}
		}
		made = time.Unix(seconds, 0)
	}
	img, err := image.Build(string(text), os.DirFS(dir), platforms, args, made)
	if err != nil {
		return err
	}
	if w.out != "" {
		if err := img.Write(w.out); err != nil {
			return err
		}
	}
	if w.push == "" {
		fmt.Fprintln(c.stdout, img.Index.Digest)
		return nil
	}
	to := registryClient(w.plain).Open(w.push)
	for i, b := range img.Blobs {
		c.say(fmt.Sprintf("%d of %d: %.19s, %d kB", i+1, len(img.Blobs), b.Digest, len(b.Data)>>10))
		if err := to.Blob(ctx, registry.Piece{Type: b.Type, Digest: b.Digest, Data: b.Data}); err != nil {
			return err
		}
	}
	for _, m := range append(img.Manifests, img.Index) {
		if err := to.Manifest(ctx, registry.Piece{Type: m.Type, Digest: m.Digest, Data: m.Data}, m.Digest); err != nil {
			return err
		}
	}
	for tag := range strings.SplitSeq(w.tags, ",") {
		if tag == "" {
			continue
		}
		if err := to.Manifest(ctx, registry.Piece{Type: img.Index.Type, Digest: img.Index.Digest, Data: img.Index.Data}, tag); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.stdout, "%s@%s\n", w.push, img.Index.Digest)
	return nil
}

func (c *call) imageTag(ctx context.Context, plain bool) error {
	if len(c.args) != 2 {
		return usageError{"name an image with its digest, and a tag"}
	}
	name, digest, ok := strings.Cut(c.args[0], "@")
	if !ok || !strings.HasPrefix(digest, "sha256:") {
		return usageError{fmt.Sprintf("%q has no digest: write NAME@sha256:...", c.args[0])}
	}
	to := registryClient(plain).Open(name)
	m, err := to.Read(ctx, digest)
	if err != nil {
		return err
	}
	if m.Digest != digest {
		return errors.New("the registry sent another image than " + digest)
	}
	if err := to.Manifest(ctx, m, c.args[1]); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s:%s is %s\n", name, c.args[1], digest)
	return nil
}
