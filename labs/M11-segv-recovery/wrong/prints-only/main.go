// Says that it is done.
package main

import "fmt"

func main() { fmt.Println("fault at 0x7f0000000000") }
