package main

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ToolsConfig is about what models may do besides answer. Who may what is not here: policies are set on the Tools page.
type ToolsConfig struct {
	Search ToolSearchConfig `yaml:"search"`
	Fetch  ToolFetchConfig  `yaml:"fetch"`
	Code   ToolCodeConfig   `yaml:"code"`
	Limits ToolLimitsConfig `yaml:"limits"`
}

// ToolSearchConfig says where web_search searches.
type ToolSearchConfig struct {
	SearXNG string `yaml:"searxng"` // URL
	Tavily  Secret `yaml:"tavily"`  // key
}

// ToolFetchConfig is about fetch_url.
type ToolFetchConfig struct {
	Allow  []string `yaml:"allow"`  // hosts of networks at home that may be fetched
	Folder string   `yaml:"folder"` // where saved pages go, below vault.path; default web
}

// ToolCodeConfig bounds code_exec; zero values are the sandbox's defaults.
type ToolCodeConfig struct {
	Python  string        `yaml:"python"`  // below /usr; default /usr/bin/python3
	Timeout time.Duration `yaml:"timeout"` // default 30s
	Memory  int64         `yaml:"memory"`  // MiB of all processes together; default 512
}

// ToolLimitsConfig bounds one answer that uses tools.
type ToolLimitsConfig struct {
	Steps  int           `yaml:"steps"`  // answers of the model; default 16
	Tokens int64         `yaml:"tokens"` // in and out, of all steps; default 400000
	Time   time.Duration `yaml:"time"`   // default 15m
}

// MCPConfig is about the Model Context Protocol.
type MCPConfig struct {
	Servers map[string]MCPServerConfig `yaml:"servers"`
}

// MCPServerConfig is a server whose tools models may use: a program that is started, or a URL.
type MCPServerConfig struct {
	Command []string          `yaml:"command"` // the program and its arguments
	Env     map[string]Secret `yaml:"env"`     // for the program
	URL     string            `yaml:"url"`     // of a streamable HTTP endpoint
	Headers map[string]Secret `yaml:"headers"` // sent with every request
	OAuth   bool              `yaml:"oauth"`   // a person logs in once, on the Tools page; the tokens are kept in the data directory
	// How the server knows this program, where it was registered there by hand; "" it registers itself.
	ClientID     string `yaml:"client_id"`
	ClientSecret Secret `yaml:"client_secret"`
	Metadata     string `yaml:"client_metadata"` // https URL of a document that describes this program to servers which read such
}

var serverName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]{0,23}$`)

// tools checks what belongs to tools.
func (v *validator) tools() {
	t := &v.c.Tools
	if u, err := url.Parse(t.Search.SearXNG); t.Search.SearXNG != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		v.fault("tools.search.searxng", "%q is not a URL: write for example http://searxng:8080", t.Search.SearXNG)
	}
	if why, literal := resolve(&t.Search.Tavily); literal {
		v.fault("tools.search.tavily", "%s", why)
	} else if why != "" {
		v.warn("tools.search.tavily", why+"; until then Tavily is not asked")
	}
	for i, host := range t.Fetch.Allow {
		if host == "" || strings.ContainsAny(host, "/*@ ") {
			v.fault(fmt.Sprintf("tools.fetch.allow[%d]", i), "%q is not a host: write its name or address, without port, such as gitea.home", host)
		}
	}
	if f := t.Fetch.Folder; f != "" && (filepath.IsAbs(f) || filepath.Clean(f) != f || strings.HasPrefix(f, ".")) {
		v.fault("tools.fetch.folder", "%q is not a folder below vault.path: write for example web", f)
	}
	for key, n := range map[string]int64{"tools.code.memory": t.Code.Memory, "tools.code.timeout": int64(t.Code.Timeout), "tools.limits.steps": int64(t.Limits.Steps),
		"tools.limits.tokens": t.Limits.Tokens, "tools.limits.time": int64(t.Limits.Time)} {
		if n < 0 {
			v.fault(key, "is below zero: leave it out for the default")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.c.MCP.Servers)) {
		s := v.c.MCP.Servers[name]
		v.server("mcp.servers."+name, name, &s)
		v.c.MCP.Servers[name] = s
	}
}

func (v *validator) server(key, name string, s *MCPServerConfig) {
	if !serverName.MatchString(name) {
		v.fault(key, "%q cannot be a server's name: use at most 24 letters, digits and dashes, a letter first", name)
	}
	switch u, err := url.Parse(s.URL); {
	case len(s.Command) == 0 && s.URL == "":
		v.fault(key, "has neither command nor url: write one of them")
	case len(s.Command) > 0 && s.URL != "":
		v.fault(key, "has both command and url: remove one")
	case len(s.Command) > 0 && (len(s.Headers) > 0 || s.OAuth):
		v.fault(key, "headers and oauth are for a url: use env for a command")
	case s.URL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil):
		v.fault(key+".url", "%q is not an http or https URL without a user name", s.URL)
	case s.URL != "" && len(s.Env) > 0:
		v.fault(key+".env", "is for a command: use headers for a url")
	}
	if why, literal := resolve(&s.ClientSecret); literal {
		v.fault(key+".client_secret", "%s", why)
	} else if why != "" {
		v.warn(key+".client_secret", why+"; until then nobody can log in to "+name)
	}
	if u, err := url.Parse(s.Metadata); s.Metadata != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.Path == "" || u.Path == "/") {
		v.fault(key+".client_metadata", "%q is not an https URL with a path", s.Metadata)
	}
	if s.ClientID != "" && !s.OAuth {
		v.fault(key+".client_id", "is for oauth: true")
	}
	for _, refs := range []struct {
		what string
		all  map[string]Secret
	}{{"env", s.Env}, {"headers", s.Headers}} {
		for _, k := range slices.Sorted(maps.Keys(refs.all)) {
			secret := refs.all[k]
			at := key + "." + refs.what + "." + k
			if why, literal := resolve(&secret); literal {
				v.fault(at, "%s", why)
			} else if why != "" {
				v.warn(at, why+"; until then "+name+" may refuse us")
			}
			refs.all[k] = secret
		}
	}
}
