package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// The versions of the others, the newest of November 2026.
const (
	portkeyVersion = "1.15.2"
	// Portkey's package takes any 1.x of this; with 1.19.19 every request fails on Node 20 ("TypeError: immutable").
	honoServerVersion = "1.13.7"
	litellmVersion    = "1.106.2"
)

// installTime bounds one installation.
const installTime = 10 * time.Minute

// install runs the commands in the cache's folder of a contestant, unless they have been run before, and returns the folder.
func install(ctx context.Context, name string, files map[string]string, commands ...[]string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "llm-runner", "bench", name)
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	progress("installing %s into the cache (once)", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	for _, c := range commands {
		cmd := exec.CommandContext(ctx, c[0], c[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("install %s: %s: %w\n%s", name, strings.Join(c, " "), err, out[max(0, len(out)-1500):])
		}
	}
	return dir, os.WriteFile(done, nil, 0o644)
}

func installPortkey(ctx context.Context) (string, error) {
	manifest := fmt.Sprintf(`{"private": true, "dependencies": {"@portkey-ai/gateway": %q}, "overrides": {"@hono/node-server": %q}}`,
		portkeyVersion, honoServerVersion)
	return install(ctx, "portkey-"+portkeyVersion, map[string]string{"package.json": manifest},
		[]string{"npm", "install", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"})
}

func installLiteLLM(ctx context.Context) (string, error) {
	return install(ctx, "litellm-"+litellmVersion, nil,
		[]string{"python3", "-m", "venv", "."},
		[]string{"bin/pip", "install", "--quiet", "--disable-pip-version-check", "litellm[proxy]==" + litellmVersion})
}

// runnerBinary is the binary of -bin, or one built from this tree the way it is released.
func (b *bench) runnerBinary(ctx context.Context) (string, error) {
	if b.binary != "" {
		return filepath.Abs(b.binary)
	}
	progress("building llm-runner")
	binary := filepath.Join(b.dir, "llm-runner")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "home.arpa/lab/llm-runner")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build llm-runner: %w\n%s", err, out)
	}
	return binary, nil
}

func goVersion() string { return "Go " + strings.TrimPrefix(runtime.Version(), "go") }

func nodeVersion(ctx context.Context) string {
	return strings.TrimPrefix(firstLine(ctx, "node", "--version"), "v")
}

func runnerVersion(ctx context.Context, binary string) string {
	return strings.TrimPrefix(firstLine(ctx, binary, "version"), "llm-runner ")
}

// firstLine is the first line that a program prints; "" where there is none.
func firstLine(ctx context.Context, program string, args ...string) string {
	out, _ := exec.CommandContext(ctx, program, args...).Output() // a version is nice to have, no more
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
