package route

import (
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
)

func TestPrivatePartsAreLeftOut(t *testing.T) {
	part := func(private bool, text string) llm.Part { return llm.Part{Private: private, Text: text} }
	all := []llm.Message{
		{Role: llm.User, Parts: []llm.Part{part(false, "a")}},
		{Role: llm.Assistant, Parts: []llm.Part{part(true, "secret")}},
		{Role: llm.User, Parts: []llm.Part{part(false, "b"), part(true, "secret"), part(false, "c")}},
	}
	sent, withheld, err := public(all, Target{"cloud", "m"})
	if err != nil || withheld != 2 || len(sent) != 3 || sent[1].Text() != leftOut || sent[1].Role != llm.Assistant || sent[2].Text() != "bc" {
		t.Errorf("%+v, %d, %v", sent, withheld, err)
	}
	if all[1].Text() != "secret" || all[2].Text() != "bsecretc" {
		t.Error("the request itself was changed, and a machine at home would lack it")
	}
	_, _, err = public([]llm.Message{{Role: llm.User, Parts: []llm.Part{part(true, "secret")}}}, Target{"cloud", "m"})
	if llm.KindOf(err) != llm.BadRequest || !strings.Contains(err.Error(), "name a model of a machine of your own") || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}
