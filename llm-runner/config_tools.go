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

	"home.arpa/lab/llm-runner/internal/toolbox/mcpclient"
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
	OAuth   bool              `yaml:"oauth"`   // a person logs in once, on the Tools page, and the tokens are kept in the data directory; or see grant
	// How the server knows this program, where it was registered there by hand; "" it registers itself.
	ClientID     string `yaml:"client_id"`
	ClientSecret Secret `yaml:"client_secret"`
	Metadata     string `yaml:"client_metadata"` // https URL of a document that describes this program to servers which read such
	// Logins without a person.
	Grant     string `yaml:"grant"`      // client_credentials, jwt_bearer or enterprise; "" a person logs in
	Issuer    string `yaml:"issuer"`     // https URL of who gives the tokens; nobody else is shown what proves who we are
	ClientKey Secret `yaml:"client_key"` // PEM; instead of client_secret
	TokenFile string `yaml:"token_file"` // path of the JWT that says who this program is
	// The identity provider whose ID tokens become assertions (grant: enterprise), as an https URL, and how it knows this program.
	IDP             string `yaml:"idp"`
	IDPClientID     string `yaml:"idp_client_id"`
	IDPClientSecret Secret `yaml:"idp_client_secret"`
	DPoP            bool   `yaml:"dpop"` // tokens are bound to a key of this program
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
	if u, err := url.Parse(s.Metadata); s.Metadata != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.Path == "" || u.Path == "/") {
		v.fault(key+".client_metadata", "%q is not an https URL with a path", s.Metadata)
	}
	v.login(key, name, s)
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

// login checks how tokens for a server are got.
func (v *validator) login(key, name string, s *MCPServerConfig) {
	proves := s.ClientSecret != "" || s.ClientKey != "" // also where it cannot be read now, which is told below
	for _, secret := range []struct {
		key   string
		value *Secret
	}{{"client_secret", &s.ClientSecret}, {"client_key", &s.ClientKey}, {"idp_client_secret", &s.IDPClientSecret}} {
		if why, literal := resolve(secret.value); literal {
			v.fault(key+"."+secret.key, "%s", why)
		} else if why != "" {
			v.warn(key+"."+secret.key, why+"; until then nobody can log in to "+name)
		}
	}
	if s.ClientKey != "" {
		if _, err := mcpclient.ParseKey([]byte(s.ClientKey)); err != nil {
			v.fault(key+".client_key", "%s", err)
		}
	}
	for at, issuer := range map[string]string{".issuer": s.Issuer, ".idp": s.IDP} {
		if u, err := url.Parse(issuer); issuer != "" && (err != nil || u.Host == "" || u.RawQuery != "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname()))) {
			v.fault(key+at, "%q is not the https URL of who gives tokens: write for example https://login.example.org/realms/home", issuer)
		}
	}
	person := s.Grant == mcpclient.GrantCode
	workload, enterprise := s.Grant == mcpclient.GrantWorkload, s.Grant == mcpclient.GrantEnterprise
	if !person && !workload && !enterprise && s.Grant != mcpclient.GrantClient {
		v.fault(key+".grant", "%q is not known: write client_credentials, jwt_bearer or enterprise, or leave it out, and a person logs in", s.Grant)
		return
	}
	for _, c := range []struct {
		key  string
		set  bool
		fits bool
		why  string
	}{
		{"client_id", s.ClientID != "", s.OAuth, "is for oauth: true"},
		{"grant", !person, s.OAuth, "is for oauth: true"},
		{"dpop", s.DPoP, s.OAuth, "is for oauth: true"},
		{"issuer", s.Issuer != "", s.OAuth, "is for oauth: true"},
		{"client_metadata", s.Metadata != "", person, "is for logins by a person: remove it, or grant"},
		{"client_key", s.ClientKey != "", !person && !enterprise, "is for grant: client_credentials or jwt_bearer"},
		{"token_file", s.TokenFile != "", workload || enterprise, "is for grant: jwt_bearer or enterprise"},
		{"idp", s.IDP != "" || s.IDPClientID != "" || s.IDPClientSecret != "", enterprise, "is for grant: enterprise"},
	} {
		if c.set && !c.fits {
			v.fault(key+"."+c.key, "%s", c.why)
		}
	}
	for _, c := range []struct {
		key  string
		need bool
		set  bool
		why  string
	}{
		{"client_id", !person, s.ClientID != "", "is missing: write how the server knows this program"},
		{"client_secret", s.Grant == mcpclient.GrantClient, proves, "is missing: write what proves who this program is, or a client_key"},
		{"issuer", !person, s.Issuer != "", "is missing: write the https URL of who gives the tokens, so that no other server gets what proves who this program is"},
		{"token_file", workload || enterprise, s.TokenFile != "", "is missing: write the path of the file with the JWT that says who this program is"},
		{"idp", enterprise, s.IDP != "", "is missing: write the https URL of the identity provider"},
		{"idp_client_id", enterprise, s.IDPClientID != "", "is missing: write how the identity provider knows this program"},
	} {
		if c.need && !c.set {
			v.fault(key+"."+c.key, "%s", c.why)
		}
	}
	if person && s.ClientSecret != "" && s.Issuer == "" {
		v.warn(key+".client_secret", "goes to whoever the server names as its issuer: write issuer, and nobody else gets it")
	}
	if s.ClientSecret != "" && s.ClientKey != "" {
		v.fault(key, "has both client_secret and client_key: remove one")
	}
}
