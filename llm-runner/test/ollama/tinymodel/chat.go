package tinymodel

import (
	"fmt"
	"maps"
	"slices"
)

// The chat models are llamas whose attention and feed-forward blocks are all zeros and add nothing, so that the state
// after the layers is the last token's own embedding. The output matrix maps the embedding of each token to the token
// that is to follow: the model is a look-up table, "after this token comes that one". The last token of the prompt, a
// marker that the Modelfile's template chooses, thus picks the answer.
//
// Embeddings are random vectors of `width` numbers, which are nearly orthogonal. With the factor 0.2, and |e|^2 = width
// after the norm, the wanted token has the logit 0.2*256 = 51 and any other about 0 +- 3: no temperature in use blurs
// that. A second choice gets a smaller factor; it is taken where a grammar (structured output) forbids the first.
const (
	width        = 256
	layers       = 2
	heads        = 4
	context      = 4096
	chatInner    = 32
	slowInner    = 4096 // 25 MB of zeros to multiply with: some 5 ms a token on one core
	firstChoice  = 0.2
	secondChoice = 0.12
)

// The markers with which a prompt ends; see the Modelfiles.
const (
	markAnswer = "<|assistant|>"
	markCall   = "<|assistant_calls|>"
	markAfter  = "<|assistant_after_tool|>"
	markCount  = "<|assistant_counts|>"

	markPlan    = "<|assistant_plans|>"
	markGrade   = "<|assistant_grades|>"
	markNotes   = "<|assistant_notes|>"
	markDraft   = "<|assistant_drafts|>"
	markSupport = "<|assistant_supports|>"
)

type follower struct {
	after, next int
	factor      float32
}

// llama builds the model. inner is the width of the feed-forward blocks: they add nothing, but their zeros cost time.
func llama(name string, inner int) *model {
	var v vocabulary
	begin, end := v.add("<|begin|>", control), v.add("<|end|>", control)
	for _, speaker := range []string{"<|user|>", "<|system|>", "<|tool|>"} {
		v.add(speaker, control)
	}
	var table []follower
	follows := map[int]bool{}
	say := func(marker string, factor float32, words []string) {
		last := v.add(marker, control)
		for _, word := range words {
			next := v.add(spelled(word), normal)
			table = append(table, follower{last, next, factor})
			if follows[next] {
				panic(fmt.Sprintf("tiny models: %q occurs twice, so what follows it is not clear", word))
			}
			follows[next] = true
			last, factor = next, firstChoice
		}
		table = append(table, follower{last, end, firstChoice})
	}
	say(markAnswer, firstChoice, helloTokens)
	say(markAnswer, secondChoice, jsonTokens)
	say(markCall, firstChoice, callTokens)
	say(markAfter, firstChoice, afterTokens)
	say(markCount, firstChoice, countTokens())
	for _, marker := range slices.Sorted(maps.Keys(researchTokens)) {
		say(marker, firstChoice, []string{researchTokens[marker]})
	}
	for _, b := range byteTokens {
		v.add(b, normal)
	}
	v.add("th", normal) // of the one merge that the tokenizer insists on

	m := newModel("llama", name)
	m.set("llama.vocab_size", uint32(len(v.tokens)))
	m.set("llama.block_count", uint32(layers))
	m.set("llama.context_length", uint32(context))
	m.set("llama.embedding_length", uint32(width))
	m.set("llama.feed_forward_length", uint32(inner))
	m.set("llama.attention.head_count", uint32(heads))
	m.set("llama.attention.head_count_kv", uint32(heads))
	m.set("llama.attention.layer_norm_rms_epsilon", float32(1e-5))
	m.set("llama.rope.dimension_count", uint32(width/heads))
	m.set("llama.rope.freq_base", float32(10000))
	v.save(m, "gpt2")
	m.set("tokenizer.ggml.merges", []string{"t h"})
	m.set("tokenizer.ggml.bos_token_id", uint32(begin))
	m.set("tokenizer.ggml.eos_token_id", uint32(end))
	m.set("tokenizer.ggml.add_bos_token", true)

	embedding := m.noise(len(v.tokens)*width, 1)
	m.add("token_embd.weight", embedding, width, len(v.tokens))
	m.add("output_norm.weight", ones(width), width)
	m.add("output.weight", successors(table, embedding), width, len(v.tokens))
	for i := range layers {
		block := fmt.Sprintf("blk.%d.", i)
		m.add(block+"attn_norm.weight", ones(width), width)
		m.add(block+"ffn_norm.weight", ones(width), width)
		for _, name := range []string{"attn_q", "attn_k", "attn_v", "attn_output"} {
			m.add(block+name+".weight", zeros(width*width), width, width)
		}
		m.add(block+"ffn_gate.weight", zeros(width*inner), width, inner)
		m.add(block+"ffn_up.weight", zeros(width*inner), width, inner)
		m.add(block+"ffn_down.weight", zeros(inner*width), inner, width)
	}
	return m
}

// successors returns the output matrix: row n scores token n by how much the state looks like a token that n follows.
func successors(table []follower, embedding []float32) []float32 {
	out := make([]float32, len(embedding))
	for _, f := range table {
		from := embedding[f.after*width : (f.after+1)*width]
		row := out[f.next*width : (f.next+1)*width]
		for k := range row {
			row[k] += f.factor * from[k]
		}
	}
	return out
}
