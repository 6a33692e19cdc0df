package catalog

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Compose is the part of a compose.yaml that contracts are about. The rest is Docker's to check.
type Compose struct {
	Containers []Container // in the order of the file
}

// A Container is one entry under services.
type Container struct {
	Name    string
	Image   string
	Ports   []Port
	Volumes []Volume
	Health  bool
	Memory  string
	CPUs    string
}

// A Port is one published port, with the comment that stands on or above its line.
type Port struct{ Text, Comment string }

// A Volume is one mount, "source:target[:ro]".
type Volume struct {
	Source, Target string
	ReadOnly       bool
}

// Has says whether a container of that name is there.
func (c Compose) Has(name string) bool {
	return slices.ContainsFunc(c.Containers, func(k Container) bool { return k.Name == name })
}

// Private says whether the port is bound to loopback or to the address in the tailnet.
func (p Port) Private() bool {
	return strings.HasPrefix(p.Text, "127.0.0.1:") || strings.HasPrefix(p.Text, "[::1]:") || strings.HasPrefix(p.Text, "${TAILNET_ADDRESS:?")
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// SplitImage takes "registry/name:tag@digest" apart. What is not there is empty.
func SplitImage(image string) (name, tag, digest string) {
	name, digest, _ = strings.Cut(image, "@")
	if at := strings.LastIndex(name, ":"); at > strings.LastIndex(name, "/") {
		name, tag = name[:at], name[at+1:]
	}
	return name, tag, digest
}

func parseCompose(text []byte) (Compose, error) {
	var file struct {
		Services yaml.Node `yaml:"services"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return Compose{}, fmt.Errorf("read compose.yaml: %w", err)
	}
	var c Compose
	for i := 0; i+1 < len(file.Services.Content); i += 2 {
		k, err := container(file.Services.Content[i].Value, file.Services.Content[i+1])
		if err != nil {
			return c, err
		}
		c.Containers = append(c.Containers, k)
	}
	if len(c.Containers) == 0 {
		return c, fmt.Errorf("read compose.yaml: it has no services")
	}
	return c, nil
}

func container(name string, n *yaml.Node) (Container, error) {
	k := Container{Name: name}
	var body struct {
		Image       string            `yaml:"image"`
		Ports       yaml.Node         `yaml:"ports"`
		Volumes     []yaml.Node       `yaml:"volumes"`
		Healthcheck map[string]any    `yaml:"healthcheck"`
		Memory      string            `yaml:"mem_limit"`
		CPUs        string            `yaml:"cpus"`
		Extends     map[string]string `yaml:"extends"`
	}
	if err := n.Decode(&body); err != nil {
		return k, fmt.Errorf("read compose.yaml: %s: %w", name, err)
	}
	k.Image, k.Memory, k.CPUs, k.Health = body.Image, body.Memory, body.CPUs, len(body.Healthcheck) > 0
	for _, p := range body.Ports.Content {
		k.Ports = append(k.Ports, Port{p.Value, strings.TrimSpace(p.HeadComment + p.LineComment)})
	}
	for _, v := range body.Volumes {
		if v.Kind != yaml.ScalarNode {
			return k, fmt.Errorf("read compose.yaml: line %d: write volumes as source:target, so that one reader understands them all", v.Line)
		}
		parts := strings.Split(v.Value, ":")
		if len(parts) < 2 {
			return k, fmt.Errorf("read compose.yaml: line %d: %q is a volume without a source, whose files nobody can name", v.Line, v.Value)
		}
		k.Volumes = append(k.Volumes, Volume{Source: parts[0], Target: parts[1], ReadOnly: len(parts) > 2 && parts[2] == "ro"})
	}
	return k, nil
}
