// Says that it is done.
package main

import "fmt"

func main() { fmt.Println("three wait, two are woken, one is left") }
