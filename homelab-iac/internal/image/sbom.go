package image

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hashed   `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hashed struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// SBOM lists what is in a Go program, read from the program itself (debug/buildinfo): no other list could say less than the truth. It is
// CycloneDX 1.6 JSON, the same for the same program; version is the program's own, "" what the program says.
func SBOM(program, version string) ([]byte, error) {
	text, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("list what is in a program: %w", err)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("list what is in %s: it is no Go program, or was built without its list: %w", program, err)
	}
	sum := sha256.Sum256(text)
	name := filepath.Base(program)
	if version == "" {
		version = info.Main.Version
	}
	main := component{Type: "application", Ref: "pkg:golang/" + info.Path, Name: name, Version: version, Hashes: []hashed{{"SHA-256", hex.EncodeToString(sum[:])}}}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS", "GOARCH", "CGO_ENABLED", "-tags", "-trimpath", "vcs.revision", "vcs.modified":
			main.Properties = append(main.Properties, property{"go:build:" + s.Key, s.Value})
		}
	}
	stdlib := "pkg:golang/stdlib@" + strings.TrimPrefix(info.GoVersion, "go")
	components := []component{{Type: "library", Ref: stdlib, Name: "stdlib", Version: info.GoVersion, PURL: stdlib}}
	uses := []string{stdlib}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		purl := "pkg:golang/" + m.Path + "@" + m.Version
		c := component{Type: "library", Ref: purl, Name: m.Path, Version: m.Version, PURL: purl}
		if m.Sum != "" {
			c.Properties = []property{{"go:sum", m.Sum}}
		}
		components, uses = append(components, c), append(uses, purl)
	}
	slices.SortFunc(components, func(a, b component) int { return strings.Compare(a.Ref, b.Ref) })
	slices.Sort(uses)
	// A serial number has the form of a UUID; this one is made of the program's hash, so that it too is the same for the same program.
	h := hex.EncodeToString(sum[:16])
	serial := fmt.Sprintf("urn:uuid:%s-%s-8%s-8%s-%s", h[:8], h[8:12], h[13:16], h[17:20], h[20:32])
	return json.MarshalIndent(map[string]any{
		"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": serial, "version": 1, "metadata": map[string]any{"component": main},
		"components": components, "dependencies": []map[string]any{{"ref": main.Ref, "dependsOn": uses}},
	}, "", "  ")
}
