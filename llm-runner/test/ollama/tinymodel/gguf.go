package tinymodel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
)

// A model is what a GGUF file holds: settings, and tensors of 32-bit floats.
// The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
type model struct {
	settings []setting
	tensors  []tensor
	random   *rand.Rand
}

type setting struct {
	key   string
	value any // uint32, float32, bool, string, []string or []int32
}

type tensor struct {
	name  string
	shape []int // fastest first: a matrix that maps n numbers to m is {n, m}
	data  []float32
}

// newModel begins a model of an architecture. Its random weights come from a fixed seed.
func newModel(architecture, name string) *model {
	m := &model{random: rand.New(rand.NewPCG(1, 2))}
	m.set("general.architecture", architecture)
	m.set("general.name", name)
	m.set("general.file_type", uint32(0)) // all F32
	return m
}

func (m *model) set(key string, value any) { m.settings = append(m.settings, setting{key, value}) }

func (m *model) add(name string, data []float32, shape ...int) {
	m.tensors = append(m.tensors, tensor{name, shape, data})
}

// noise returns n normally distributed weights.
func (m *model) noise(n int, deviation float64) []float32 {
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(m.random.NormFloat64() * deviation)
	}
	return w
}

func zeros(n int) []float32 { return make([]float32, n) }

// ones are the weights of a norm that changes nothing.
func ones(n int) []float32 {
	w := zeros(n)
	for i := range w {
		w[i] = 1
	}
	return w
}

// The format's names for types of values, and the alignment of tensors.
const (
	typeUint32  = 4
	typeInt32   = 5
	typeFloat32 = 6
	typeBool    = 7
	typeString  = 8
	typeArray   = 9

	tensorF32 = 0
	alignment = 32
)

var le = binary.LittleEndian

// bytes returns the file: magic, version 3, settings, the tensors' directory, the tensors.
func (m *model) bytes() []byte {
	b := []byte("GGUF")
	b = le.AppendUint32(b, 3)
	b = le.AppendUint64(b, uint64(len(m.tensors)))
	b = le.AppendUint64(b, uint64(len(m.settings)))
	for _, s := range m.settings {
		b = appendValue(appendString(b, s.key), s.value)
	}
	offset := 0 // of a tensor, since the end of the directory
	for _, t := range m.tensors {
		b = appendString(b, t.name)
		b = le.AppendUint32(b, uint32(len(t.shape)))
		for _, n := range t.shape {
			b = le.AppendUint64(b, uint64(n))
		}
		b = le.AppendUint32(b, tensorF32)
		b = le.AppendUint64(b, uint64(offset))
		offset += aligned(4 * len(t.data))
	}
	for _, t := range m.tensors {
		b = append(b, make([]byte, aligned(len(b))-len(b))...)
		for _, w := range t.data {
			b = le.AppendUint32(b, math.Float32bits(w))
		}
	}
	return append(b, make([]byte, aligned(len(b))-len(b))...)
}

func aligned(n int) int { return (n + alignment - 1) / alignment * alignment }

func appendString(b []byte, s string) []byte {
	return append(le.AppendUint64(b, uint64(len(s))), s...)
}

func appendValue(b []byte, value any) []byte {
	switch v := value.(type) {
	case uint32:
		return le.AppendUint32(le.AppendUint32(b, typeUint32), v)
	case float32:
		return le.AppendUint32(le.AppendUint32(b, typeFloat32), math.Float32bits(v))
	case bool:
		b = le.AppendUint32(b, typeBool)
		if v {
			return append(b, 1)
		}
		return append(b, 0)
	case string:
		return appendString(le.AppendUint32(b, typeString), v)
	case []string:
		b = appendArray(b, typeString, len(v))
		for _, s := range v {
			b = appendString(b, s)
		}
		return b
	case []int32:
		b = appendArray(b, typeInt32, len(v))
		for _, n := range v {
			b = le.AppendUint32(b, uint32(n))
		}
		return b
	}
	panic(fmt.Sprintf("gguf: no type for %T", value))
}

func appendArray(b []byte, of uint32, n int) []byte {
	return le.AppendUint64(le.AppendUint32(le.AppendUint32(b, typeArray), of), uint64(n))
}
