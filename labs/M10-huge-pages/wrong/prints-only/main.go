// Says that it is done.
package main

import "fmt"

func main() { fmt.Println("512 entries are one") }
