package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestTheExampleDeploymentsConfigurationLoads: what role services puts on the VPS is understood, with the vault and everything that the other machines
// offer; where a secret is still missing it is told, and only a missing password or token stops the program.
func TestTheExampleDeploymentsConfigurationLoads(t *testing.T) {
	const file = "../homelab-iac/services/llm-runner/runner.yaml"
	if _, err := os.Stat(file); err != nil {
		t.Skip("the homelab's room is not here")
	}
	secrets := []string{"QDRANT_API_KEY", "GROQ_API_KEY", "GEMINI_API_KEY", "ANTHROPIC_API_KEY", "LANGFUSE_AUTHORIZATION"}
	for _, name := range append(secrets, "DISCORD_WEBHOOK") {
		t.Setenv(name, "")
		os.Unsetenv(name) //nolint:errcheck // Setenv puts back what was there
	}
	t.Setenv("LLM_RUNNER_PASSWORD", "a long password")
	t.Setenv("LLM_RUNNER_TOKEN", "a-token-of-the-lab-0123456789")
	vault := t.TempDir() // the file says /vault, which is in the container
	c, err := Load(Options{Config: file, Data: t.TempDir(), Vault: vault})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != len(secrets)+1 {
		t.Errorf("without secrets it warns of\n%v", c.Warnings)
	}
	for _, name := range secrets {
		t.Setenv(name, "a-secret-of-the-lab-0123456789")
	}
	t.Setenv("DISCORD_WEBHOOK", "https://discord.com/api/webhooks/1/x")
	if c, err = Load(Options{Config: file, Data: t.TempDir(), Vault: vault}); err != nil || len(c.Warnings) > 0 {
		t.Fatal(err, c.Warnings)
	}
	if c.Vault.dropbox() == nil || c.Library.Store != "qdrant" || c.Tools.Search.SearXNG == "" || c.Discord.Webhook == "" || c.Traces.Endpoint == "" || c.Routes.Project != "davas" ||
		c.Routes.Models["gemma4"].Requires != "davas" || !slices.Contains(c.Vault.NeverSend, "Private") {
		t.Errorf("%+v", c)
	}
	if text, err := os.ReadFile(file); err != nil || !slices.Contains(strings.Split(string(text), "\n"), "  path: /vault # /srv/vault/notes, which Syncthing keeps in step with prod-services") {
		t.Error("the vault is not where compose.yaml mounts it", err)
	}
}
