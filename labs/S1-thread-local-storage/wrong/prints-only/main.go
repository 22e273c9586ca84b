// Says that it is done.
package main

import "fmt"

func main() { fmt.Println("first and second have thread pointers of their own") }
