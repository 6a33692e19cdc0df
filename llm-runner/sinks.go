package main

import (
	"cmp"
	"strings"

	"home.arpa/lab/internal/discord"
	"home.arpa/lab/internal/ntfy"
	"home.arpa/lab/internal/webhook"
	"home.arpa/lab/llm-runner/internal/alert"
)

// sinks are who passes alerts on, by the names that the configuration has for them, in the order in which people read them.
func (c *Config) sinks() (names []string, all map[string]alert.Sink) {
	all = map[string]alert.Sink{}
	add := func(name string, s alert.Sink) { names, all[name] = append(names, name), s }
	if hook := string(c.Discord.Webhook); hook != "" {
		add("discord", discord.New(hook))
	}
	if c.Alerts.Ntfy.Topic != "" {
		add("ntfy", ntfy.New(c.Alerts.Ntfy.settings()))
	}
	if c.Alerts.Webhook.URL != "" {
		add("webhook", webhook.New(c.Alerts.Webhook.settings()))
	}
	return names, all
}

func (n NtfyConfig) settings() ntfy.Config {
	return ntfy.Config{URL: cmp.Or(n.URL, "https://ntfy.sh"), Topic: string(n.Topic), Token: string(n.Token), Title: "llm-runner", Priority: n.Priority}
}

func (w WebhookConfig) settings() webhook.Config {
	return webhook.Config{URL: string(w.URL), Secret: string(w.Secret), Source: "llm-runner"}
}

// alerts checks where alerts go besides Discord. A secret that is missing leaves the rest of the house working.
func (v *validator) alerts() {
	n, w := &v.c.Alerts.Ntfy, &v.c.Alerts.Webhook
	told := func(key string, s *Secret) {
		if why, literal := resolve(s); literal {
			v.fault(key, "%s", why)
		} else if why != "" {
			v.warn(key, why+"; until then nobody is told by it")
		}
	}
	wanted := n.Topic != ""
	told("alerts.ntfy.topic", &n.Topic)
	told("alerts.ntfy.token", &n.Token)
	if n.Topic != "" {
		v.each("alerts.ntfy.", n.settings().Validate())
	} else if !wanted && (n.URL != "" || n.Priority != 0) {
		v.fault("alerts.ntfy.topic", "is missing: name the topic by env:NAME or file:PATH")
	}
	told("alerts.webhook.url", &w.URL)
	told("alerts.webhook.secret", &w.Secret)
	if w.URL != "" {
		v.each("alerts.webhook.", w.settings().Validate())
	}
}

// each reports the faults of a package's own configuration, below a key.
func (v *validator) each(below string, err error) {
	for _, err := range v.errors(err) {
		field, text, _ := strings.Cut(err.Error(), ": ")
		v.fault(below+field, "%s", text)
	}
}
