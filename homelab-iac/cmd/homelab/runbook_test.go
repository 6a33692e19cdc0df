package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"home.arpa/lab/homelab-iac/internal/catalog"
)

func TestEveryIncidentHasAPageAndItsMessageLeadsThere(t *testing.T) {
	all, err := loadCatalog("")
	if err != nil {
		t.Fatal(err)
	}
	// What is told of beside the monitors, as watch.go, deploy.go, terraform.go and alive.go name it.
	incidents := append(catalog.Monitors(all), "the fast repository, read from contabo", "the slow repository, read from contabo", "Uptime Kuma, pushed from contabo",
		"Uptime Kuma, asked from outside", "deployment of llm-runner", "what is rented (prod)")
	for _, incident := range incidents {
		page := catalog.Runbook(incident)
		if page == "README.md" {
			t.Errorf("%s has no page: add it to catalog.Runbook, and the page to docs/runbooks", incident)
		}
		if _, err := os.Stat(filepath.Join("../../../docs/runbooks", page)); err != nil {
			t.Error(err)
		}
		if got := withRunbook("it is late.", "", incident); got != "it is late. Runbook: docs/runbooks/"+page {
			t.Error(got)
		}
	}
	if withRunbook("", "", "x") != "" || !strings.HasSuffix(withRunbook("x", "https://gitlab.example/r/", "new"), "https://gitlab.example/r/README.md") {
		t.Error("nothing wrong has a page, or something unknown has none")
	}
}

func TestTheServicesPageIsWhatTheCatalogSays(t *testing.T) {
	page, err := os.ReadFile("../../../docs/services.md")
	if err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := homelab(t, "", "catalog", "page"); code != 0 || stdout != string(page) {
		t.Errorf("exit %d: docs/services.md is stale: homelab catalog page >docs/services.md", code)
	}
}
