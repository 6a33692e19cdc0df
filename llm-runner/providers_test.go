package main

import "testing"

func TestOllamasOwnCloudIsACloud(t *testing.T) {
	for _, x := range []struct {
		url, model string
		cloud      bool
	}{
		{"http://127.0.0.1:11434", "gemma4:27b", false}, {"http://127.0.0.1:11434", "gpt-oss:120b-cloud", true}, {"http://davas:11434", "kimi-k2:cloud", true},
		{"https://ollama.com", "gpt-oss:120b", true}, {"https://api.ollama.com/", "x", true}, {"http://notollama.com", "x", false},
	} {
		if elsewhere(x.url, x.model) != x.cloud {
			t.Errorf("%s at %s: outside is not %v", x.model, x.url, x.cloud)
		}
	}
}
