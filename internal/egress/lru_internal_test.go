package egress

import (
	"slices"
	"testing"
)

func TestLRU(t *testing.T) {
	l := newLRU[int, string](2)
	l.put(1, "one")
	l.put(2, "two")
	if value, found := l.get(1); value != "one" || !found {
		t.Errorf("1 is %q, %v", value, found)
	}
	if old, evicted := l.put(3, "three"); old != "two" || !evicted {
		t.Errorf("3 drove %q out, %v", old, evicted)
	}
	if _, evicted := l.put(1, "ONE"); evicted {
		t.Error("a new value of 1 drove something out")
	}
	l.remove(3)
	l.remove(3)
	if _, found := l.get(3); found {
		t.Error("3 was removed and is there")
	}
	if old, evicted := l.put(4, "four"); evicted {
		t.Errorf("4 drove %q out though there was room", old)
	}
	var values []string
	l.each(func(value string) { values = append(values, value) })
	if !slices.Equal(values, []string{"four", "ONE"}) || len(l.entries) != 2 {
		t.Errorf("left are %v", values)
	}
}
