use greenroom::prelude::*;
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct A {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct B {}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct C {}
message! { A -> u8; B -> u8; C -> u8 }
#[derive(Default, Serialize, Deserialize)]
struct X {}
impl Agent for X {
    const KIND: &'static str = "x";
    type Messages = ((A, B), (C,));
}
impl Handler<A> for X {
    async fn handle(&mut self, _: A, t: &Turn<Self>) -> Result<u8> {
        Ok(t.agent::<X>("y").ask(C {}).await? + t.at(&t.me()).ask(B {}).await?)
    }
}
impl Handler<B> for X {
    async fn handle(&mut self, _: B, _: &Turn<Self>) -> Result<u8> {
        Ok(1)
    }
}
impl Query<C> for X {
    async fn query(&self, _: C, _: &Turn<Self>) -> Result<u8> {
        Ok(1)
    }
}
// generic over any agent that takes A
async fn any<G: greenroom::Accepts<A, I>, I>(h: Handle) -> Result<u8> {
    Ok(h.agent::<G>("k").ask(A {}).await?)
}
fn send_sync<T: Send + Sync>() {}
fn main() -> ExitCode {
    send_sync::<Turn<X>>();
    let _ = any::<X, _>;
    Runtime::builder().agent::<X>().main()
}
