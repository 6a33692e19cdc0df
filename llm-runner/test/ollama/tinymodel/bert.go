package tinymodel

import (
	"fmt"
	"strings"
)

// Vectors and their inside.
const (
	EmbedWidth = 64 // numbers in a vector of Embed

	bertInner   = 128
	bertLayers  = 2
	bertHeads   = 4
	bertContext = 512
)

// bertWords are the words that the embedding model knows whole; others it spells.
const bertWords = `the of and to in is was for on that with as it at by this be are from or an have not which but one all
	their more when who can will would there what so up out if about into than them only some could time these two may then
	do first any my now such like our over me even most made after also did many before must through years where much your
	way well down should because each just those people how too little good very make world still own work long here
	both between life being under never day same another know while last might us great old year off come since against go
	cat dog kitten puppy animal bank money loan credit car engine wheel road weather rain sun snow music song guitar doctor
	hospital medicine bread flour oven server backup restore disk network garden tomato water`

// bert is an encoder with small random weights. Its vector is the mean over the tokens of their embedding, slightly
// stirred: near for texts that share words, which is all that a test of a search needs.
func bert(name string) *model {
	var v vocabulary
	special := map[string]uint32{}
	for _, token := range []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} {
		special[token] = uint32(v.add(token, control))
	}
	for c := '!'; c <= '~'; c++ { // lower case only: the tokenizer folds letters
		if c < 'A' || c > 'Z' {
			v.add("▁"+string(c), normal) // at the beginning of a word
			v.add(string(c), normal)     // inside
		}
	}
	for word := range strings.FieldsSeq(bertWords) {
		v.add("▁"+word, normal)
	}

	m := newModel("bert", name)
	m.set("bert.block_count", uint32(bertLayers))
	m.set("bert.context_length", uint32(bertContext))
	m.set("bert.embedding_length", uint32(EmbedWidth))
	m.set("bert.feed_forward_length", uint32(bertInner))
	m.set("bert.attention.head_count", uint32(bertHeads))
	m.set("bert.attention.layer_norm_epsilon", float32(1e-12))
	m.set("bert.attention.causal", false)
	m.set("bert.pooling_type", uint32(1)) // the mean
	v.save(m, "bert")
	m.set("tokenizer.ggml.token_type_count", uint32(2))
	m.set("tokenizer.ggml.padding_token_id", special["[PAD]"])
	m.set("tokenizer.ggml.unknown_token_id", special["[UNK]"])
	m.set("tokenizer.ggml.cls_token_id", special["[CLS]"])
	m.set("tokenizer.ggml.bos_token_id", special["[CLS]"])
	m.set("tokenizer.ggml.seperator_token_id", special["[SEP]"]) // the format's own spelling
	m.set("tokenizer.ggml.eos_token_id", special["[SEP]"])
	m.set("tokenizer.ggml.mask_token_id", special["[MASK]"])

	norm := func(name string) {
		m.add(name+".weight", ones(EmbedWidth), EmbedWidth)
		m.add(name+".bias", zeros(EmbedWidth), EmbedWidth)
	}
	linear := func(name string, in, out int) {
		m.add(name+".weight", m.noise(in*out, 0.02), in, out)
		m.add(name+".bias", zeros(out), out)
	}
	m.add("token_embd.weight", m.noise(EmbedWidth*len(v.tokens), 1), EmbedWidth, len(v.tokens))
	m.add("token_types.weight", zeros(EmbedWidth*2), EmbedWidth, 2)
	m.add("position_embd.weight", m.noise(EmbedWidth*bertContext, 0.02), EmbedWidth, bertContext)
	norm("token_embd_norm")
	for i := range bertLayers {
		block := fmt.Sprintf("blk.%d.", i)
		linear(block+"attn_q", EmbedWidth, EmbedWidth)
		linear(block+"attn_k", EmbedWidth, EmbedWidth)
		linear(block+"attn_v", EmbedWidth, EmbedWidth)
		linear(block+"attn_output", EmbedWidth, EmbedWidth)
		norm(block + "attn_output_norm")
		linear(block+"ffn_up", EmbedWidth, bertInner)
		linear(block+"ffn_down", bertInner, EmbedWidth)
		norm(block + "layer_output_norm")
	}
	return m
}
