package main

import (
	"strconv"
	"strings"
)

// bodySize is the size of a delivered body, in bytes: events are padded to it.
const bodySize = 1024

// smallPad makes small events of those that wait in great numbers: their number
// counts, and the embedded broker keeps about 100 MB of them.
const smallPad = 16

// envelope is what a delivered body holds beside the data of an event of type
// bench.0: {"type":"bench.0","timestamp":"2026-01-02T03:04:05.678Z","data":…}.
const envelope = 71

// events writes the events of one run as plain JSON. Their ids are made of run
// and number, so that an event that is sent again is the same event.
type events struct {
	head, middle, tail string
	run                string
	typeOf             func(n int64) string
}

// newEvents returns the events of a tenant; typeOf names the type of each.
func newEvents(tenant string, run int, typeOf func(n int64) string) *events {
	e := &events{
		run: strconv.Itoa(run), typeOf: typeOf,
		head: `{"tenant":"` + tenant + `","type":"`, middle: `,"data":{"n":`,
	}
	const around = `{"n":1234567,"pad":""}`
	e.tail = `,"pad":"` + strings.Repeat("x", bodySize-envelope-len(around)) + `"}}`
	return e
}

// padded gives the events as many bytes of padding instead, and returns them.
func (e *events) padded(bytes int) *events {
	e.tail = `,"pad":"` + strings.Repeat("x", bytes) + `"}}`
	return e
}

// append adds event number n to dst.
func (e *events) append(dst []byte, n int64) []byte {
	dst = append(dst, e.head...)
	dst = append(dst, e.typeOf(n)...)
	dst = append(dst, `","id":"`...)
	dst = append(dst, e.run...)
	dst = append(dst, '-')
	dst = strconv.AppendInt(dst, n, 10)
	dst = append(dst, '"')
	dst = append(dst, e.middle...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, e.tail...)
}

// lines returns count events from number first on, one per line.
func (e *events) lines(dst []byte, first, count int64) []byte {
	for n := first; n < first+count; n++ {
		dst = append(e.append(dst, n), '\n')
	}
	return dst
}
