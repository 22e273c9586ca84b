package tracedat

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"labctl/host/trace/capture"
)

// machine is what a kernel can be like.
type machine struct {
	order interface {
		binary.ByteOrder
		binary.AppendByteOrder
	}
	long, page int
}

var kernels = []machine{
	{binary.LittleEndian, 8, 4096},
	{binary.LittleEndian, 4, 4096},
	{binary.BigEndian, 8, 4096},
	{binary.BigEndian, 4, 4096},
	{binary.LittleEndian, 8, 65536},
	{binary.LittleEndian, 4, 8192},
}

// small is a capture of two events on the second of two CPUs.
func small(m machine) *capture.Capture {
	page := m.order.AppendUint64(nil, 1e9)
	data := event(m, 100, 137, 0x1234)
	data = append(data, event(m, 200, 138, 0x5678)...)
	if m.long == 8 {
		page = m.order.AppendUint64(page, uint64(len(data)))
	} else {
		page = m.order.AppendUint32(page, uint32(len(data)))
	}
	page = append(page, data...)
	page = append(page, make([]byte, m.page-len(page))...)
	return &capture.Capture{
		Order: m.order, LongSize: m.long, PageSize: m.page,
		HeaderPage: fmt.Appendf(nil, `	field: u64 timestamp;	offset:0;	size:8;	signed:0;
	field: local_t commit;	offset:8;	size:%d;	signed:1;
	field: int overwrite;	offset:8;	size:1;	signed:1;
	field: char data;	offset:%d;	size:%d;	signed:1;
`, m.long, 8+m.long, m.page-8-m.long),
		HeaderEvent: []byte(`# compressed entry header
	type_len    :    5 bits
	time_delta  :   27 bits
	array       :   32 bits

	padding     : type == 29
	time_extend : type == 30
	time_stamp : type == 31
	data max type_len  == 28
`),
		Formats: []capture.Format{{System: "labctl", Text: []byte(`name: made
ID: 1234
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:u32 value;	offset:8;	size:4;	signed:0;

print fmt: "value=%u", REC->value
`)}},
		Kallsyms: []byte("ffffffff81000000 T _text\n"),
		Cmdlines: []byte("137 labprobe\n"),
		Clocks:   []byte("[local] global\n"),
		Uname:    "Linux 6.12 mips",
		CPUCount: 2,
		CPUs:     []capture.CPU{{ID: 1, Pages: bytes.NewReader(page), Size: int64(len(page)), Stats: []byte("entries: 2\n")}},
	}
}

func event(m machine, delta, pid, value uint32) []byte {
	head := delta<<5 | 3 // three words of data
	if m.order.Uint16([]byte{0, 1}) == 1 {
		head = 3<<27 | delta
	}
	b := m.order.AppendUint32(nil, head)
	b = m.order.AppendUint16(b, 1234)
	b = append(b, 0, 0)
	b = m.order.AppendUint32(b, pid)
	return m.order.AppendUint32(b, value)
}
